"""What a run adds up between two lines of its log: losses on the device, and time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


class Ledger:
    """Losses since the last line, the first step whose loss was not finite, and the clock.

    Nothing here makes a GPU wait except reading a result. The sums are part of a checkpoint, so that a resumed run
    writes the lines that the undisturbed one would have written.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss_sum = torch.zeros((), device=device)
        self.steps = 0
        self._first_bad_step = torch.zeros((), dtype=torch.long, device=device)
        self.earlier_seconds = 0.0
        self.start_clock()

    def start_clock(self) -> None:
        self.began = self.line_began = time.perf_counter()
        self.timed_steps = 0

    @property
    def elapsed(self) -> float:
        """Seconds of training, the times between a run's sessions left out."""
        return self.earlier_seconds + time.perf_counter() - self.began

    @property
    def first_bad_step(self) -> int | None:
        return int(self._first_bad_step) or None

    def add_loss(self, loss: Tensor, step: int) -> None:
        """Add a part of the loss of ``step``, counted from 1."""
        self.loss_sum += loss
        self._first_bad_step += (~torch.isfinite(loss) & (self._first_bad_step == 0)) * step

    def end_step(self) -> None:
        self.steps += 1
        self.timed_steps += 1

    def end_line(self) -> tuple[float, float]:
        """The mean loss and the steps per second since the last line; a new line begins."""
        loss = self.loss_sum.item() / self.steps
        now = time.perf_counter()
        rate = self.timed_steps / (now - self.line_began)
        self.loss_sum.zero_()
        self.steps = self.timed_steps = 0
        self.line_began = now
        return loss, rate

    @contextlib.contextmanager
    def untimed(self) -> Iterator[None]:
        """What happens within does not count against the steps per second."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.line_began += time.perf_counter() - began

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"steps": self.steps, "seconds": self.elapsed}, {"loss_sum": self.loss_sum.cpu()}

    def restore(self, notes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.loss_sum.copy_(tensors["loss_sum"])
        self.steps = notes["steps"]
        self.earlier_seconds = notes["seconds"]
