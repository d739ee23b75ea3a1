"""Milliseconds per generated token, and the bytes of state that decoding carries.

All models are timed in turn, repeatedly, in one process, so that a machine whose speed drifts treats them alike; what
counts are medians and ratios of one run.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from foveate.cost import Load, predict
from foveate.errors import FoveateError

READ_FLOPS = 3e13  # a context that takes more to read is filled with random numbers: the time per token is the same
WARM_UP = 8  # tokens


@dataclass(frozen=True, kw_only=True)
class DecodeTime:
    """One model at one context. Times are per step, in which each of ``batch`` rows gains a token."""

    name: str
    walk: str | None
    context: int
    batch: int
    dtype: str
    ms_per_token: float  # median over the repeats of the mean over a repeat's tokens
    ms_low: float  # fastest and slowest repeat
    ms_high: float
    tokens_per_s: float
    prefill_tokens_per_s: float | None  # None: the state was filled, not read
    state_bytes: int
    weight_bytes: int
    firings: dict[str, float] | None  # runs per token of the layers of each stride
    predicted: dict[str, float] | None  # FLOPs per token and bytes of state, from cost.py
    repeats: int
    tokens: int
    threads: int
    device: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class _Subject:
    """A model and its state after a context that grows from measurement to measurement."""

    def __init__(self, name: str, model: PreTrainedModel, batch: int) -> None:
        self.name, self.batch = name, batch
        self.model: Any = model.eval()
        self.spec = getattr(model.config, "spec", None)
        self.cache: Any = self.model.make_cache(batch) if hasattr(model, "make_cache") else None
        self.read: list[Tensor] = []  # the ids of the context, which generate wants to see again
        self.length = 0
        self.prefill_tokens_per_s: float | None = None
        self.random = torch.Generator().manual_seed(0)

    def _ids(self, columns: int) -> Tensor:
        ids = torch.randint(self.model.config.vocab_size, (self.batch, columns), generator=self.random)
        return ids.to(self.model.device)

    def grow(self, context: int, note: Callable[[str], Any]) -> None:
        """Read random tokens up to ``context``; where that takes too long, make up the state they would leave."""
        missing = context - self.length
        load = Load(context=context, vocab_size=self.model.config.vocab_size)
        if self.spec is not None and missing * predict(self.spec, load).total.flops_per_token / 2 > READ_FLOPS:
            note(f"{self.name}: reading {context:,} tokens takes too long; its state is filled with random numbers")
            self.cache.fill(context, self.model.dtype, self.model.device)
            self.prefill_tokens_per_s = None
            self.read = [self._ids(context)]
        else:
            ids = self._ids(missing)
            self.read.append(ids)
            start = time.perf_counter()
            if hasattr(self.model, "read"):
                self.model.read(ids, self.cache)
            else:
                output = self.model(ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
                self.cache = output.past_key_values
            _wait(self.model)
            self.prefill_tokens_per_s = self.batch * missing / (time.perf_counter() - start)
        self.length = context

    def decode(self, tokens: int, through_generate: bool) -> float:
        """Seconds per step of ``tokens`` greedy steps from the context on, which leave the state as it was."""
        cache, ids = copy.deepcopy(self.cache), self._ids(1)
        everything = torch.cat([*self.read, ids], 1)
        _wait(self.model)
        start = time.perf_counter()
        if through_generate:
            length = {"max_new_tokens": tokens, "min_new_tokens": tokens}
            self.model.generate(everything, past_key_values=cache, do_sample=False, pad_token_id=0, **length)
        else:
            for _ in range(tokens):
                logits = self.model(ids, past_key_values=cache, use_cache=True).logits
                ids = logits[:, -1].argmax(-1, keepdim=True)
        _wait(self.model)
        return (time.perf_counter() - start) / tokens

    @property
    def state_bytes(self) -> int:
        if hasattr(self.cache, "nbytes"):
            return self.cache.nbytes
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)

    def result(self, seconds: list[float], tokens: int) -> DecodeTime:
        firings = predicted = None
        if self.spec is not None:
            dtype = str(self.model.dtype).removeprefix("torch.")
            load = Load(context=self.length, vocab_size=self.model.config.vocab_size, batch=self.batch, dtype=dtype)
            total = predict(self.spec, load).total
            firings = {str(run.stride): 1 / run.stride for run in self.spec.runs if run.layers}
            predicted = {"flops_per_token": total.flops_per_token, "state_bytes": total.cache_bytes}
        median = statistics.median(seconds)
        return DecodeTime(
            name=self.name,
            walk=str(self.spec) if self.spec is not None else None,
            context=self.length,
            batch=self.batch,
            dtype=str(self.model.dtype).removeprefix("torch."),
            ms_per_token=1e3 * median,
            ms_low=1e3 * min(seconds),
            ms_high=1e3 * max(seconds),
            tokens_per_s=self.batch / median,
            prefill_tokens_per_s=self.prefill_tokens_per_s,
            state_bytes=self.state_bytes,
            weight_bytes=sum(p.nbytes for p in self.model.parameters()),
            firings=firings,
            predicted=predicted,
            repeats=len(seconds),
            tokens=tokens,
            threads=torch.get_num_threads(),
            device=str(self.model.device),
        )


def time_decoding(
    models: Mapping[str, PreTrainedModel],
    *,
    context: int | Sequence[int],
    batch: int = 1,
    tokens: int = 64,
    repeats: int = 5,
    through_generate: bool = False,
    note: Callable[[str], Any] = lambda line: None,
) -> Iterator[DecodeTime]:
    """Decode ``tokens`` tokens after ``context`` random ones with each model in turn, ``repeats`` times.

    Args:
        models: name to causal language model; ours read the context in chunks, others in one call.
        context: one number of tokens, or several: measured from the shortest on, each going on from the one before.
        through_generate: time ``model.generate`` instead of a bare loop over ``forward``.
        note: told in a line what is being done.

    Raises:
        FoveateError: for a context, batch, number of tokens or of repeats below 1.
    """
    contexts = sorted([context] if isinstance(context, int) else context)
    for name, value in {"context": contexts[0], "batch": batch, "tokens": tokens, "repeats": repeats}.items():
        if value < 1:
            raise FoveateError(f"{name} is {value}; it must be at least 1")
    return _time_decoding(models, contexts, batch, tokens, repeats, through_generate, note)


@torch.inference_mode()
def _time_decoding(
    models: Mapping[str, PreTrainedModel],
    contexts: list[int],
    batch: int,
    tokens: int,
    repeats: int,
    through_generate: bool,
    note: Callable[[str], Any],
) -> Iterator[DecodeTime]:
    subjects = [_Subject(name, model, batch) for name, model in models.items()]
    for context in contexts:
        for subject in subjects:
            note(f"{subject.name}: reading {context:,} tokens")
            subject.grow(context, note)
            subject.decode(min(tokens, WARM_UP), through_generate)
        seconds: dict[str, list[float]] = {subject.name: [] for subject in subjects}
        for _ in range(repeats):
            for subject in subjects:
                seconds[subject.name].append(subject.decode(tokens, through_generate))
        for subject in subjects:
            yield subject.result(seconds[subject.name], tokens)


def _wait(model: PreTrainedModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()
