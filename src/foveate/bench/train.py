"""Training tokens per second: the same steps with each model in turn, in one process."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from foveate.errors import FoveateError

WARM_UP = 2  # steps; the first one also takes the memory


@dataclass(frozen=True, kw_only=True)
class TrainSpeed:
    """One model's training: forward, backward and a fused AdamW step, in bf16 autocast if ``dtype`` says so."""

    name: str
    walk: str | None
    context: int
    batch: int
    dtype: str
    params: int
    train_tokens_per_s: float  # of the median step
    tokens_per_s_low: float
    tokens_per_s_high: float
    steps: int
    threads: int
    device: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class _Subject:
    def __init__(self, name: str, model: PreTrainedModel, batch: int, context: int, bf16: bool) -> None:
        self.name, self.bf16 = name, bf16
        self.model: Any = model.train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(model.config.vocab_size, (batch, context), generator=generator).to(model.device)
        self.seconds: list[float] = []

    def step(self) -> float:
        """Seconds of one step."""
        device = self.model.device.type
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            loss = self.model(input_ids=self.ids, labels=self.ids, use_cache=False).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def time_training(
    models: Mapping[str, PreTrainedModel],
    *,
    context: int,
    batch: int,
    steps: int = 8,
    bf16: bool = True,
    note: Callable[[str], Any] = lambda line: None,
) -> list[TrainSpeed]:
    """Train each model for ``steps`` steps, a step of each in turn.

    Raises:
        FoveateError: for a context below 2, or a batch or number of steps below 1.
    """
    for name, value, least in (("context", context, 2), ("batch", batch, 1), ("steps", steps, 1)):
        if value < least:
            raise FoveateError(f"{name} is {value}; it must be at least {least}")
    subjects = [_Subject(name, model, batch, context, bf16) for name, model in models.items()]
    for step in range(-WARM_UP, steps):
        note(f"step {step + 1} of {steps}" if step >= 0 else "warming up")
        for subject in subjects:
            seconds = subject.step()
            if step >= 0:
                subject.seconds.append(seconds)
    return [_result(subject) for subject in subjects]


def _result(subject: _Subject) -> TrainSpeed:
    spec = getattr(subject.model.config, "spec", None)
    batch, context = subject.ids.shape
    low, median, high = (
        batch * context / seconds
        for seconds in (max(subject.seconds), statistics.median(subject.seconds), min(subject.seconds))
    )
    return TrainSpeed(
        name=subject.name,
        walk=str(spec) if spec is not None else None,
        context=context,
        batch=batch,
        dtype="bfloat16" if subject.bf16 else "float32",
        params=sum(p.numel() for p in subject.model.parameters()),
        train_tokens_per_s=median,
        tokens_per_s_low=low,
        tokens_per_s_high=high,
        steps=len(subject.seconds),
        threads=torch.get_num_threads(),
        device=str(subject.model.device),
    )
