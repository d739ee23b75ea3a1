"""What a run adds up between two lines of its log: losses on the device, which steps were no good, and time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Line:
    """What the log says of the steps since the line before.

    Attributes:
        losses: of each step, in nats per token.
        faulty: whether that step was too bad to learn from.
        steps_per_s: validating and saving not counted.
    """

    losses: list[float]
    faulty: list[bool]
    steps_per_s: float

    @property
    def loss(self) -> float | None:
        """The mean of the steps that were learned from; None if there are none."""
        good = [loss for loss, faulty in zip(self.losses, self.faulty, strict=True) if not faulty]
        return sum(good) / len(good) if good else None


class Ledger:
    """Losses and faults of the steps since the last line, and the clock.

    Nothing here makes a GPU wait except reading a result, which is done where a line is written, and before a
    checkpoint or a validation. The steps so far are part of a checkpoint, so that a resumed run writes the lines that
    the undisturbed one would have written.

    Args:
        limit: a loss above it, in nats per token, is a fault, as is one that is not a number.
    """

    def __init__(self, device: torch.device, *, limit: float) -> None:
        self.limit = limit
        self.part = torch.zeros((), device=device)
        self.losses: list[Tensor] = []  # fp32 []
        self.faulty: list[Tensor] = []  # fp32 [], 0 or 1
        self.earlier_seconds = 0.0
        self.start_clock()

    def start_clock(self) -> None:
        self.began = self.line_began = time.perf_counter()
        self.timed_steps = 0

    @property
    def elapsed(self) -> float:
        """Seconds of training, the times between a run's sessions left out."""
        return self.earlier_seconds + time.perf_counter() - self.began

    def add_loss(self, loss: Tensor) -> None:
        """Add a part of the present step's loss."""
        self.part += loss

    def end_step(self, grad_norm: Tensor) -> Tensor:
        """The present step's loss is complete; returns whether it or the gradient is no good, as 0 or 1 on the device.

        Args:
            grad_norm: of the whole gradient, before it was clipped.
        """
        # written so that it is not, rather than is, fulfilled by what is no number
        healthy = (self.part <= self.limit) & torch.isfinite(grad_norm.to(self.part.device))
        self.losses.append(self.part)
        self.faulty.append((~healthy).float())
        self.part = torch.zeros_like(self.part)
        self.timed_steps += 1
        return self.faulty[-1]

    def find_faults(self) -> list[int]:
        """Which of the steps since the last line were no good, counted from 0. Waits for the device."""
        return torch.stack(self.faulty).nonzero().flatten().tolist() if self.faulty else []

    def end_line(self) -> Line:
        """What there is to write; a new line begins. Waits for the device, once."""
        losses, faulty = torch.stack([torch.stack(self.losses), torch.stack(self.faulty)]).tolist()
        now = time.perf_counter()
        rate = self.timed_steps / (now - self.line_began)
        self.losses, self.faulty = [], []
        self.timed_steps = 0
        self.line_began = now
        return Line(losses=losses, faulty=[bool(fault) for fault in faulty], steps_per_s=rate)

    @contextlib.contextmanager
    def untimed(self) -> Iterator[None]:
        """What happens within does not count against the steps per second."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.line_began += time.perf_counter() - began

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        tensors = {"losses": self.losses, "faulty": self.faulty}
        return {"seconds": self.elapsed}, {
            name: torch.stack(values).cpu() if values else torch.zeros(0) for name, values in tensors.items()
        }

    def restore(self, notes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.losses = list(tensors["losses"].to(self.part.device).unbind())
        self.faulty = list(tensors["faulty"].to(self.part.device).unbind())
        self.earlier_seconds = notes["seconds"]
