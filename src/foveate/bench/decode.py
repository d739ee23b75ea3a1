"""Milliseconds per generated token, and the bytes of state that decoding carries.

All models are timed in turn, repeatedly, in one process, so that a machine whose speed drifts treats them alike; what
counts are medians and ratios of one run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveate.bench.engines import Engine, HubEngine, NotPossibleError, StaticHubEngine
from foveate.bench.peers import Contender, contender
from foveate.bench.profile import profile_tokens
from foveate.bench.roofline import Bandwidth, firings, synchronize
from foveate.bench.room import has_room
from foveate.cost import Load, predict
from foveate.errors import FoveateError
from foveate.stats import ratio_by_turn, spread

READ_FLOPS = 3e12  # a context that takes more to read is filled with random numbers: the time per token is the same
WARM_UP = 64  # tokens


@dataclass(frozen=True, kw_only=True)
class DecodeTime:
    """One model at one context. Times are per step, in which each of ``batch`` rows gains a token.

    Attributes:
        context: tokens read before, by the longest row.
        ms_per_token, ms_low, ms_high: median, fastest and slowest repeat of the mean over a repeat's tokens.
        prefill_tokens_per_s: None if the state was filled, not read, or there is none.
        state_bytes: kept after the context, what is reserved ahead included.
        firings: calls per token of the layers of each stride; None for a model that is no walk.
        predicted: FLOPs per token, bytes of state and of weights, from ``foveate.cost``.
        read_bytes: of weights and state that a step must read.
        roofline_ms: the time to read them at ``bandwidth``, bytes per second of a plain matrix-vector product in the
            same turns; ``over_roofline`` is the median of the turns' ratios to it.
        ratio, ratio_low, ratio_high: of the time per token to that of the model ``against``, turn by turn; None where
            that was left out.
        profile: see ``TokenProfile``; None unless asked for.
    """

    name: str
    walk: str | None
    context: int
    batch: int
    ragged: bool
    dtype: str
    ms_per_token: float
    ms_low: float
    ms_high: float
    tokens_per_s: float
    prefill_tokens_per_s: float | None
    state_bytes: int
    weight_bytes: int
    firings: dict[str, float] | None
    predicted: dict[str, float] | None
    read_bytes: float | None
    bandwidth: float | None
    roofline_ms: float | None
    over_roofline: float | None
    against: str
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    profile: dict[str, Any] | None
    repeats: int
    tokens: int
    threads: int
    device: str
    compiled: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How to time: ``tokens`` greedy steps, ``repeats`` times.

    Attributes:
        through_generate: time ``model.generate`` where there is one, instead of a bare loop over ``forward``.
        ragged: rows of different lengths, from half the first context to all of it, padded on the left.
        roofline: also measure the bandwidth of matrix-vector products in the shapes of the first walk.
        profile: also profile a repeat, after the others.
        compiled: compile the steps, with a state of declared length.
        against: the model that ratios are to.
    """

    tokens: int = 64
    repeats: int = 5
    through_generate: bool = False
    ragged: bool = False
    roofline: bool = False
    profile: bool = False
    compiled: bool = False
    against: str


class _Subject:
    """A model whose context grows from measurement to measurement."""

    def __init__(self, name: str, given: Contender, batch: int, timing: Timing) -> None:
        self.name, self.timing, self.walk = name, timing, given.walk
        kind = StaticHubEngine if timing.compiled and given.engine is HubEngine else given.engine
        self.engine: Engine = kind(given.model, batch, given.spec)
        if timing.compiled:
            self.engine.compile()
        self.tokens = min(timing.tokens, self.engine.most_tokens or timing.tokens)
        self.texts: list[Tensor] = []  # the ids of the context, which generate wants to see again
        self.prefill_tokens_per_s: float | None = None
        self.random = torch.Generator().manual_seed(0)
        self.seconds: list[float] = []

    def _ids(self, columns: int) -> Tensor:
        shape = (self.engine.batch, columns)
        return torch.randint(self.engine.vocab_size, shape, generator=self.random).to(self.engine.device)

    def grow(self, context: int, note: Callable[[str], Any]) -> bool:
        """Read random tokens up to ``context``; where that takes too long, make up the state they would leave."""
        engine = self.engine
        engine.prepare(context + self.timing.tokens)
        missing = context - engine.columns
        slow = engine.flops_to_read(missing) > READ_FLOPS
        if not has_room(engine.bytes_to_hold(context), engine.device, f"{self.name} at {context:,} tokens", note):
            return False
        if slow and engine.fill(context, self._pads(context)):
            note(f"{self.name}: reading {context:,} tokens takes too long; its state is filled with random numbers")
            self.prefill_tokens_per_s = None
            self.texts = [self._ids(context)]
        elif slow:
            note(f"{self.name} at {context:,} tokens: left out, it would take too long")
            return False
        else:
            note(f"{self.name}: reading {context:,} tokens")
            self._read(missing)
        return True

    def _pads(self, columns: int) -> np.ndarray | None:
        """Columns of padding before each row, up to half of them; none before the first."""
        if not self.timing.ragged:
            return None
        pads = np.random.default_rng(0).integers(0, columns // 2, self.engine.batch, endpoint=True)
        pads[0] = 0
        return pads

    def _read(self, columns: int) -> None:
        if not self.engine.columns:
            self.texts = []
        ids_BT, pads = self._ids(columns), None if self.engine.columns else self._pads(columns)
        start = time.perf_counter()
        self.engine.read(ids_BT, pads)
        synchronize(self.engine.device)
        tokens = ids_BT.numel() - (0 if pads is None else int(pads.sum()))
        self.prefill_tokens_per_s = tokens / (time.perf_counter() - start) if self.engine.state_bytes else None
        self.texts.append(ids_BT)

    def decode(self, tokens: int) -> float:
        """Seconds per step of ``tokens`` greedy steps from the context on, which leave the context as it was."""
        engine = self.engine
        state, ids_B1 = engine.fork(tokens), self._ids(1)
        through_generate = self.timing.through_generate and engine.generates
        text_BT = torch.cat([*self.texts, ids_B1], 1) if through_generate else ids_B1
        synchronize(engine.device)
        start = time.perf_counter()
        if through_generate:
            engine.generate(text_BT, tokens, state)
        else:
            engine.decode(ids_B1, tokens, state)
        synchronize(engine.device)
        return (time.perf_counter() - start) / tokens

    def _profile(self, ms_per_token: float) -> dict[str, Any] | None:
        if not self.timing.profile:
            return None
        return profile_tokens(self.decode, self.tokens, ms_per_token).to_json()

    def result(self, reference: _Subject | None, bandwidths: list[float]) -> DecodeTime:
        engine, spec = self.engine, self.engine.spec
        calls = predicted = None
        if spec is not None:
            load = Load(context=engine.columns, vocab_size=engine.vocab_size, batch=engine.batch, dtype=engine.dtype)
            cost = predict(spec, load)
            calls = {str(k): v for k, v in firings(spec, engine.lengths.tolist(), self.tokens).items()}
            calls = {str(run.stride): calls[str(run.stride)] for run in spec.runs if run.layers}
            predicted = {
                "flops_per_token": cost.total.flops_per_token,
                "state_bytes": cost.total.cache_bytes,
                "weight_bytes": cost.weight_bytes,
            }
        read_bytes = engine.bytes_read(self.tokens) if bandwidths else None
        roofline = over = None
        if read_bytes is not None:
            roofs = [read_bytes / bandwidth for bandwidth in bandwidths]
            roofline, over = 1e3 * read_bytes / spread(bandwidths).median, ratio_by_turn(self.seconds, roofs).median
        seconds, relation = spread(self.seconds), None
        if reference is not None:
            relation = ratio_by_turn(self.seconds, reference.seconds)
        return DecodeTime(
            name=self.name,
            walk=self.walk,
            context=engine.columns,
            batch=engine.batch,
            ragged=self.timing.ragged,
            dtype="int8" if engine.rounded else engine.dtype,
            ms_per_token=1e3 * seconds.median,
            ms_low=1e3 * seconds.low,
            ms_high=1e3 * seconds.high,
            tokens_per_s=engine.batch / seconds.median,
            prefill_tokens_per_s=self.prefill_tokens_per_s,
            state_bytes=engine.state_bytes,
            weight_bytes=engine.weight_bytes,
            firings=calls,
            predicted=predicted,
            read_bytes=read_bytes,
            bandwidth=spread(bandwidths).median if bandwidths else None,
            roofline_ms=roofline,
            over_roofline=over,
            against=self.timing.against,
            ratio=relation and relation.median,
            ratio_low=relation and relation.low,
            ratio_high=relation and relation.high,
            profile=self._profile(1e3 * seconds.median),
            repeats=len(self.seconds),
            tokens=self.tokens,
            threads=torch.get_num_threads(),
            device=str(engine.device),
            compiled=self.timing.compiled,
        )


def time_decoding(
    models: Mapping[str, Any],
    *,
    context: int | Sequence[int],
    batch: int = 1,
    tokens: int = 64,
    repeats: int = 5,
    through_generate: bool = False,
    ragged: bool = False,
    roofline: bool = False,
    profile: bool = False,
    compiled: bool = False,
    against: str | None = None,
    ready: Callable[[], Any] = lambda: None,
    note: Callable[[str], Any] = lambda line: None,
) -> Iterator[DecodeTime]:
    """Decode ``tokens`` tokens after ``context`` random ones with each model in turn, ``repeats`` times.

    Args:
        models: name to causal language model, or what ``make_models`` made.
        context: one number of tokens, or several: measured from the shortest on, each going on from the one before.
            What there is no memory or no time for is left out, and ``note`` told.
        through_generate, ragged, roofline, profile, compiled, against: see ``Timing``.
        ready: called at each context when all is compiled, before what is timed.
        note: told in a line what is being done.

    Raises:
        FoveateError: for a context, batch, number of tokens or of repeats below 1; ragged rows in a batch of one.
    """
    contexts = sorted([context] if isinstance(context, int) else context)
    for name, value in {"context": contexts[0], "batch": batch, "tokens": tokens, "repeats": repeats}.items():
        if value < 1:
            raise FoveateError(f"{name} is {value}; it must be at least 1")
    if ragged and batch == 1:
        raise FoveateError("batch is 1: rows of different lengths take at least 2")
    if compiled and (ragged or through_generate):
        kind = "rows of different lengths" if ragged else "model.generate"
        raise FoveateError(f"compiled steps are timed in a bare loop over even rows; leave out {kind} or compiling")
    if against is not None and against not in models:
        raise FoveateError(f"there is no model {against!r} to relate to; choose one of {', '.join(models)}")
    timing = Timing(
        tokens=tokens,
        repeats=repeats,
        through_generate=through_generate,
        ragged=ragged,
        roofline=roofline,
        profile=profile,
        compiled=compiled,
        against=against or next(iter(models)),
    )
    contenders = {name: contender(model) for name, model in models.items()}
    return _time_decoding(contenders, contexts, batch, timing, ready, note)


@torch.inference_mode()
def _time_decoding(
    contenders: Mapping[str, Contender],
    contexts: list[int],
    batch: int,
    timing: Timing,
    begin: Callable[[], Any],
    note: Callable[[str], Any],
) -> Iterator[DecodeTime]:
    subjects = [_Subject(name, given, batch, timing) for name, given in contenders.items()]
    bandwidth = _bandwidth(subjects) if timing.roofline else None
    for context in contexts:
        ready = []
        for subject in subjects:
            try:
                if subject.grow(context, note):
                    if timing.compiled:
                        note(f"{subject.name}: compiling its steps, which takes a minute or more")
                    subject.decode(min(subject.tokens, WARM_UP))
                    ready.append(subject)
            except NotPossibleError as error:
                note(f"{subject.name}: left out, {error}")
            subject.seconds = []
        begin()
        bandwidths: list[float] = []
        for _ in range(timing.repeats):
            if bandwidth is not None:
                bandwidths.append(bandwidth.measure())
            for subject in ready:
                subject.seconds.append(subject.decode(subject.tokens))
        reference = next((subject for subject in ready if subject.name == timing.against), None)
        for subject in ready:
            yield subject.result(reference, bandwidths)
        subjects = ready  # what has no room at a context has none at a longer one


def _bandwidth(subjects: list[_Subject]) -> Bandwidth | None:
    """Of the shapes of the first walk's tokens."""
    found = (subject for subject in subjects if subject.engine.spec is not None)
    first = next(found, None)
    if first is None or first.engine.spec is None:
        return None
    return Bandwidth(first.engine.spec.levels[0], first.engine.model.dtype, first.engine.device)
