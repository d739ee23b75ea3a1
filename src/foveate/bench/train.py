"""Training tokens per second: the same steps with each model in turn, in one process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from foveate.bench.peer_models import PeerModel
from foveate.bench.peers import Contender, contender
from foveate.bench.roofline import MatmulPeak, synchronize
from foveate.bench.room import has_room
from foveate.cost import FP32, FP32_COPIES, Load, predict
from foveate.errors import FoveateError
from foveate.stats import ratio_by_turn, spread

WARM_UP = 2  # steps; the first one also takes the memory


@dataclass(frozen=True, kw_only=True)
class TrainSpeed:
    """One model's training: forward, backward and a fused AdamW step, in bf16 autocast if ``dtype`` says so.

    Attributes:
        train_tokens_per_s: of the median step; ``tokens_per_s_low`` and ``…_high`` of the slowest and the fastest.
        peak_flops_per_s: of a large matrix product, measured between the steps; None if it was not.
        mfu: the share of that which the model's predicted FLOPs make use of.
        predicted: FLOPs per token of forward and backward, from ``foveate.cost``; None for a model that is no walk.
        ratio, ratio_low, ratio_high: of the tokens per second to those of the model ``against``, turn by turn; None
            where that was left out.
    """

    name: str
    walk: str | None
    context: int
    batch: int
    dtype: str
    params: int
    train_tokens_per_s: float
    tokens_per_s_low: float
    tokens_per_s_high: float
    predicted: dict[str, float] | None
    peak_flops_per_s: float | None
    mfu: float | None
    against: str
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    steps: int
    threads: int
    device: str
    compiled: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class _Subject:
    def __init__(self, name: str, given: Contender, batch: int, context: int, bf16: bool, compiled: bool) -> None:
        self.name, self.given, self.bf16, self.compiled = name, given, bf16, compiled
        self.model: Any = given.model.train()
        self.forward: Any = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        generator = torch.Generator().manual_seed(0)
        vocabulary = self.model.config.get_text_config().vocab_size
        self.ids_BT = torch.randint(vocabulary, (batch, context), generator=generator).to(self.model.device)
        self.seconds: list[float] = []

    def step(self) -> float:
        """Seconds of one step."""
        device = self.model.device
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            loss = self.forward(input_ids=self.ids_BT, labels=self.ids_BT, use_cache=False).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        synchronize(device)
        return time.perf_counter() - start

    def result(self, against: str, reference: _Subject | None, peaks: list[float]) -> TrainSpeed:
        batch, context = self.ids_BT.shape
        rates = [batch * context / seconds for seconds in self.seconds]
        rate, relation = spread(rates), None
        if reference is not None:
            relation = ratio_by_turn(reference.seconds, self.seconds)
        peak, flops = spread(peaks).median if peaks else None, self._flops_per_token()
        return TrainSpeed(
            name=self.name,
            walk=self.given.walk,
            context=context,
            batch=batch,
            dtype="bfloat16" if self.bf16 else "float32",
            params=sum(p.numel() for p in self.model.parameters()),
            train_tokens_per_s=rate.median,
            tokens_per_s_low=rate.low,
            tokens_per_s_high=rate.high,
            predicted=None if flops is None else {"train_flops_per_token": flops},
            peak_flops_per_s=peak,
            mfu=None if flops is None or peak is None else flops * rate.median / peak,
            against=against,
            ratio=relation and relation.median,
            ratio_low=relation and relation.low,
            ratio_high=relation and relation.high,
            steps=len(self.seconds),
            threads=torch.get_num_threads(),
            device=str(self.model.device),
            compiled=self.compiled,
        )

    def _flops_per_token(self) -> float | None:
        if self.given.spec is None:
            return None
        load = Load(context=self.ids_BT.shape[1], vocab_size=self.model.config.get_text_config().vocab_size)
        return predict(self.given.spec, load).total.train_flops_per_token


def time_training(
    models: Mapping[str, Any],
    *,
    context: int,
    batch: int,
    steps: int = 8,
    bf16: bool = True,
    peak: bool = False,
    compiled: bool = False,
    against: str | None = None,
    ready: Callable[[], Any] = lambda: None,
    note: Callable[[str], Any] = lambda line: None,
) -> list[TrainSpeed]:
    """Train each model for ``steps`` steps, a step of each in turn. One that finds no memory is left out.

    Args:
        models: name to causal language model, or what ``make_models`` made.
        peak: also time a large matrix product in each turn, for the share of it that models reach.
        compiled: compile every model with ``torch.compile``.
        against: the model that ratios are to; by default the first.
        ready: called when all is compiled, before what is timed.
        note: told in a line what is being done.

    Raises:
        FoveateError: for a context below 2, or a batch or number of steps below 1.
    """
    for name, value, least in (("context", context, 2), ("batch", batch, 1), ("steps", steps, 1)):
        if value < least:
            raise FoveateError(f"{name} is {value}; it must be at least {least}")
    if against is not None and against not in models:
        raise FoveateError(f"there is no model {against!r} to relate to; choose one of {', '.join(models)}")
    contenders = fitting(models, batch=batch, context=context, bf16=bf16, note=note)
    if not contenders:
        return []
    subjects = [_Subject(name, given, batch, context, bf16, compiled) for name, given in contenders.items()]
    device = subjects[0].model.device
    product = MatmulPeak(torch.bfloat16 if bf16 else torch.float32, device) if peak else None
    peaks: list[float] = []
    for step in range(-WARM_UP, steps):
        if step == -1:
            ready()
        note(f"step {step + 1} of {steps}" if step >= 0 else "warming up")
        if product is not None and step >= 0:
            peaks.append(product.measure())
        for subject in subjects:
            if compiled and step == -WARM_UP:
                note(f"{subject.name}: compiling, which takes a minute or more")
            seconds = subject.step()
            if step >= 0:
                subject.seconds.append(seconds)
    against = against or next(iter(models))
    reference = next((subject for subject in subjects if subject.name == against), None)
    return [subject.result(against, reference, peaks) for subject in subjects]


def fitting(
    models: Mapping[str, Any],
    *,
    batch: int,
    context: int,
    bf16: bool,
    note: Callable[[str], Any],
) -> dict[str, Contender]:
    """Those models that there is memory to train, one at a time, their weights and moments side by side."""
    kept: dict[str, Contender] = {}
    standing = 0.0
    for name, model in models.items():
        given = contender(model)
        states = (FP32_COPIES - 1) * FP32 * sum(p.numel() for p in given.model.parameters())  # weights are there
        needed = standing + states + step_bytes(given, batch, context, bf16)
        if has_room(needed, next(given.model.parameters()).device, f"{name} at {batch} x {context:,} tokens", note):
            kept[name] = given
            standing += states
    return kept


def step_bytes(given: Contender, batch: int, context: int, bf16: bool) -> float:
    """What one step keeps for its backward, predicted; for peers that are no walk, roughly; for others unknown: 0."""
    model: Any = given.model
    if given.spec is None:
        return model.layers * model.forward_bytes(batch, context) if isinstance(model, PeerModel) else 0.0
    load = Load(
        context=context,
        vocab_size=model.config.get_text_config().vocab_size,
        batch=batch,
        dtype="bfloat16" if bf16 else "float32",
    )
    return predict(given.spec, load).total.backward_bytes
