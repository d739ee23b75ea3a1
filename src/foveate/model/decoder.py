"""The walk as a module: from token embeddings to one causal feature per token.

Shape legend: B batch rows, T new tokens (each row's real tokens first), D width of level 1.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from foveate import spec
from foveate.backends import compute_dtype
from foveate.errors import FoveateError
from foveate.model.cache import StepCache
from foveate.model.clock import Clock, Count
from foveate.model.layers import Stack
from foveate.model.packed import PackedClock
from foveate.model.resample import Downsample, Upsample
from foveate.model.steps import CompiledStep, Due, StepClock
from foveate.model.streams import Trace

Step = Stack | Downsample | Upsample


class Decoder(nn.Module):
    """One causal feature per new token. Any split of a sequence over calls gives the features of one call.

    Args:
        spec: the walk and the shapes of its levels.
        theta: base of the rotary positions, in units of each level.
        eps: of the RMS norms.

    Attributes:
        whole_batches: layers see every row of the batch, also those in which no unit of their level is due: what hooks
            and adapters need that go by a row's number. What such rows get is not looked at.
        compiled_step: takes the steps of one token per row with a cache of declared length; see ``compile_decoding``.
    """

    whole_batches = False
    compiled_step: CompiledStep | None = None

    def __init__(self, spec: spec.HierarchySpec, *, theta: float = 10_000.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.spec = spec
        self.steps = nn.ModuleList(self._make_step(step, theta, eps) for step in spec.steps)
        self.norm = nn.RMSNorm(spec.levels[0].width, eps)

    def _make_step(self, step: spec.Step, theta: float, eps: float) -> Step:
        level = self.spec.level
        if isinstance(step, spec.Pool):
            return Downsample(step, level(step.source), level(step.stride), self.spec.pooling, eps)
        if isinstance(step, spec.Expand):
            return Upsample(step, level(step.stride), level(step.source), self.spec.expanding, eps=eps)
        depth = sum(run.layers for run in self.spec.runs if run.stride == step.stride)
        return Stack(step, level(step.stride), self.spec.block, depth=depth, rope=self.spec.rope(step, theta), eps=eps)

    def make_cache(self, batch: int, max_length: int | None = None) -> StepCache:
        """An empty cache for ``batch`` sequences; memory is taken as they grow, or, for rows of up to ``max_length``
        tokens, at once: nothing in it then moves again."""
        return StepCache([cast(Step, step).make_buffers() for step in self.steps], batch, max_length)

    def forward(
        self,
        x_BTD: Tensor,
        cache: StepCache | None = None,
        counts: np.ndarray | None = None,
        trace: Trace | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """Features [B, T, D] of the new tokens ``x_BTD``, which follow those in ``cache``, which is written.

        While gradients are wanted, what the cache is given is part of the graph, and they flow through it.

        Args:
            counts: [B] how many of its T columns each row really has, from the left; None: all. Features past a row's
                count mean nothing.
            trace: gets what each layer puts out, in the order of the walk.
            documents: [B, T] the number of the document that each column belongs to, never falling along a row: each
                gives what it gives alone.

        Raises:
            FoveateError: the cache is for another number of rows; documents together with a cache or counts.
        """
        B, T, _ = x_BTD.shape
        if cache is not None and cache.batch != B:
            raise FoveateError(f"the cache holds {cache.batch} rows and the batch {B}; make the cache for this batch")
        if documents is not None and (cache is not None or counts is not None):
            raise FoveateError("documents: rows that hold several are read whole, without a cache and without counts")
        new: Count = T if counts is None else counts
        if cache is not None and cache.max_length is not None:
            cache.check_room(new)
            cache.allocate(compute_dtype(x_BTD), x_BTD.device)
            if self.compiled_step is not None and cache.compiled and self._is_step(x_BTD, counts, trace):
                return self._take_step(x_BTD, cache, self.compiled_step)
        clock: Clock | PackedClock
        if documents is not None:
            clock = PackedClock(documents, self.spec)
        else:
            clock = Clock(cache.lengths if cache is not None else 0, new, self.spec.strides, self.whole_batches)
        tokens = clock.units(1)
        if tokens.size == 0:
            return x_BTD
        rows = tokens.row_index(x_BTD.device)
        x = x_BTD[:, : tokens.size] if rows is None else x_BTD[rows, : tokens.size]
        if cache is not None:
            cache.begin(live=torch.is_grad_enabled() and (self._wants_gradients(x_BTD) or cache.in_graph))
        x = self.norm(self._walk(x, clock, cache, B, trace))
        if cache is not None:
            cache.advance(new)
        if rows is None and tokens.size == T:
            return x
        out = x.new_zeros(B, T, x.shape[-1])
        out[slice(None) if rows is None else rows, : tokens.size] = x
        return out

    # steps at fixed addresses

    def step(self, x_B1D: Tensor, cache: StepCache, lengths_B: Tensor, due: Due) -> Tensor:
        """Features [B, 1, D] of one more token of each row, after the ``lengths_B`` in ``cache``, whose length is
        declared and which is written; ``cache.advance`` is left to the caller. What differs between steps that ask
        for the same ``due`` is in tensors."""
        assert cache.max_length is not None
        clock = StepClock(lengths_B, due, self.spec, cache.max_length)
        return self.norm(self._walk(x_B1D, clock, cache, len(x_B1D), None))

    def _is_step(self, x_BTD: Tensor, counts: np.ndarray | None, trace: Trace | None) -> bool:
        return x_BTD.shape[1] == 1 and counts is None and trace is None and not torch.is_grad_enabled()

    def _take_step(self, x_B1D: Tensor, cache: StepCache, compiled: CompiledStep) -> Tensor:
        lengths_B = cache.lengths_on(x_B1D.device)
        cache.begin(live=False)
        x = compiled(type(self).step, self, x_B1D, cache, lengths_B, Due.of(self.spec, cache.lengths))
        cache.advance_step()
        return x

    def _wants_gradients(self, x: Tensor) -> bool:
        return x.requires_grad or any(parameter.requires_grad for parameter in self.parameters())

    def _walk(
        self,
        x: Tensor,
        clock: Clock | PackedClock | StepClock,
        cache: StepCache | None,
        batch: int,
        trace: Trace | None,
    ) -> Tensor:
        streams = {1: x}  # the newest units of each level reached so far
        for index, (step, move) in enumerate(zip(self.steps, self.spec.steps, strict=True)):
            buffers = cache.steps[index] if cache is not None else ()
            units = clock.units(move.stride)
            if isinstance(move, spec.Pool):
                source = clock.units(move.source)
                streams[move.stride] = step(streams[move.source], source, units, buffers, batch)
            elif isinstance(move, spec.Expand):
                if units.size:
                    source = clock.units(move.source)
                    streams[move.stride] = step(
                        streams[move.stride], streams[move.source], units, source, buffers, batch
                    )
            else:
                streams[move.stride] = step(streams[move.stride], units, buffers, batch, trace)
        return streams[1]
