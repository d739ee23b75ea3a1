"""The walk as a module: from token embeddings to one causal feature per token.

Shape legend: B batch rows, T new tokens (each row's real tokens first), D width of level 1.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from torch import Tensor, nn

from foveate.errors import FoveateError
from foveate.model.cache import StepCache
from foveate.model.clock import Clock, Count
from foveate.model.layers import Run
from foveate.model.resample import Expand, Pool
from foveate.model.streams import Trace
from foveate.spec import Expand as ExpandMove
from foveate.spec import HierarchySpec, Step
from foveate.spec import Pool as PoolMove


class Decoder(nn.Module):
    """One causal feature per new token. Any split of a sequence over calls gives the features of one call.

    Args:
        spec: the walk and the shapes of its levels.
        theta: base of the rotary positions, in units of each level.
        eps: of the RMS norms.
    """

    def __init__(self, spec: HierarchySpec, *, theta: float = 10_000.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.spec = spec
        self.steps = nn.ModuleList(self._make_step(step, theta, eps) for step in spec.steps)
        self.norm = nn.RMSNorm(spec.levels[0].width, eps)

    def _make_step(self, step: Step, theta: float, eps: float) -> Run | Pool | Expand:
        spec = self.spec
        if isinstance(step, PoolMove):
            return Pool(step, spec.level(step.source), spec.level(step.stride), spec.pooling, eps)
        if isinstance(step, ExpandMove):
            return Expand(step, spec.level(step.stride), spec.level(step.source), spec.expanding, eps=eps)
        depth = sum(run.layers for run in spec.runs if run.stride == step.stride)
        return Run(step, spec.level(step.stride), depth=depth, theta=theta, eps=eps)

    def make_cache(self, batch: int) -> StepCache:
        """An empty cache for ``batch`` sequences; memory is taken as they grow."""
        return StepCache([cast(Run | Pool | Expand, step).make_tapes() for step in self.steps], batch)

    def forward(
        self,
        x_BTD: Tensor,
        cache: StepCache | None = None,
        counts: np.ndarray | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Features [B, T, D] of the new tokens ``x_BTD``, which follow those in ``cache`` (written in place).

        ``counts`` [B] says how many of its T columns each row really has, from the left; None: all. Features past a
        row's count mean nothing. ``trace`` gets what each layer puts out, in the order of the walk.

        Raises:
            FoveateError: the cache is for another number of rows.
        """
        B, T, _ = x_BTD.shape
        if cache is not None and cache.batch != B:
            raise FoveateError(f"the cache holds {cache.batch} rows and the batch {B}; make the cache for this batch")
        new: Count = T if counts is None else counts
        clock = cache.clock(new) if cache is not None else Clock(0, new)
        tokens = clock.span(1)
        if tokens.size == 0:
            return x_BTD
        rows = tokens.row_index(x_BTD.device)
        x = x_BTD[:, : tokens.size] if rows is None else x_BTD[rows, : tokens.size]
        if cache is not None:
            cache.begin()
        x = self.norm(self._walk(x, clock, cache, B, trace))
        if cache is not None:
            cache.advance(new)
        if rows is None and tokens.size == T:
            return x
        out = x.new_zeros(B, T, x.shape[-1])
        out[slice(None) if rows is None else rows, : tokens.size] = x
        return out

    def _walk(self, x: Tensor, clock: Clock, cache: StepCache | None, batch: int, trace: Trace | None) -> Tensor:
        units = {1: x}  # the newest units of each level reached so far
        for index, (step, move) in enumerate(zip(self.steps, self.spec.steps, strict=True)):
            tapes = cache.steps[index] if cache is not None else ()
            span = clock.span(move.stride)
            if isinstance(move, PoolMove):
                units[move.stride] = step(units[move.source], clock.span(move.source), span, tapes, batch)
            elif isinstance(move, ExpandMove):
                if span.size:
                    units[move.stride] = step(
                        units[move.stride], units[move.source], span, clock.span(move.source), tapes, batch
                    )
            else:
                units[move.stride] = step(units[move.stride], span, tapes, batch, trace)
        return units[1]
