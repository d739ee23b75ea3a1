"""Steps of decoding at fixed addresses: one more token of every row; all that differs between steps is in tensors.

Which levels are due is the same for many steps: a compiler needs one graph for each ``Due``, and CUDA graphs can replay
it, since the buffers of a cache of declared length stay where they are. A walk of strides 1, 4 and 16 has three.

Shape legend: B batch rows, D width of level 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foveate.model.clock import Count, Units
from foveate.spec import Fovea, HierarchySpec

MOST_GRAPHS = 64  # of one decoder; further ones are left to run as they are


@dataclass(frozen=True, kw_only=True)
class Due:
    """What a step does, whatever the lengths of the rows.

    Attributes:
        levels: of each level, from the finest on, whether some row completes a unit.
        opening: of each run of layers, whether in some row the new unit is the first of a fovea's block.
        even: all rows have the same length.
    """

    levels: tuple[bool, ...]
    opening: tuple[bool, ...]
    even: bool

    @classmethod
    def of(cls, spec: HierarchySpec, lengths: Count) -> Due:
        """Of the step that follows ``lengths``."""
        rows = [lengths] if isinstance(lengths, int) else lengths.tolist()
        return cls(
            levels=tuple(any((row + 1) % stride == 0 for row in rows) for stride in spec.strides),
            opening=tuple(
                isinstance(run.attention, Fovea)
                and any((row + 1) % run.stride == 0 == row // run.stride % run.attention.block for row in rows)
                for run in spec.runs
            ),
            even=isinstance(lengths, int),
        )


class StepUnits(Units):
    """The new unit of one level in each row, if there is one; where rows stand is a tensor."""

    def __init__(
        self, start_B: Tensor, count_B: Tensor | None, size: int, longest: int, opening: frozenset[int]
    ) -> None:
        self._start_B, self._count_B, self.size, self.longest = start_B, count_B, size, longest
        self.rows = self.indices = None
        self.aligned = self.fresh = False
        self.full = count_B is None
        self._opening = opening

    def starts(self, device: torch.device) -> Tensor:
        return self._start_B[:, None]

    def counts(self, device: torch.device) -> Tensor:
        return super().counts(device) if self._count_B is None else self._count_B[:, None]

    def row_index(self, device: torch.device) -> Tensor | None:
        return None

    def rows_within_finer(self, device: torch.device) -> Tensor | None:
        return None

    def begins_block(self, block: int) -> bool:
        return block in self._opening

    def held(self, factor: int) -> Units:
        return StepUnits(self._start_B // factor, None, 0, self.longest // factor, frozenset())


class StepClock:
    """The units of all levels in a step of rows that hold ``lengths_B`` tokens, of at most ``longest``."""

    def __init__(self, lengths_B: Tensor, due: Due, spec: HierarchySpec, longest: int) -> None:
        self._units: dict[int, StepUnits] = {}
        for stride, is_due in zip(spec.strides, due.levels, strict=True):
            start_B = lengths_B // stride
            count_B = None if due.even else (lengths_B + 1) // stride - start_B
            opening = frozenset(
                run.attention.block
                for run, opens in zip(spec.runs, due.opening, strict=True)
                if opens and run.stride == stride and isinstance(run.attention, Fovea)
            )
            self._units[stride] = StepUnits(start_B, count_B, int(is_due), longest // stride, opening)

    def units(self, stride: int) -> StepUnits:
        return self._units[stride]


class CompiledStep:
    """``Decoder.step``, compiled when it is first asked for; ``options`` are those of ``torch.compile``."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self._compiled: Any = None

    def __call__(self, step: Any, *args: Any) -> Tensor:
        if self._compiled is None:
            options = {"recompile_limit": MOST_GRAPHS, "isolate_recompiles": True, **self.options}
            self._compiled = torch.compile(step, dynamic=False, **options)
        out: Tensor = self._compiled(*args)
        return out

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledStep:
        return CompiledStep(self.options)

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledStep, (self.options,)
