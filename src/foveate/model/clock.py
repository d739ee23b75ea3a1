"""Which units of which level are new in a call, counted from each row's own first token.

Rows that begin a call at the same length are *aligned*: their positions are plain numbers and every index is a slice.
Rows that do not carry one number each; all levels' numbers go to the device together, once per call. Where rows of a
call end apart, each level keeps only the rows in which it has something new.

Shape legend: B batch rows, R rows that have new units, S new units of a level at most in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from foveate.model.documents import Indices

Count = int | np.ndarray  # one number for all rows, or int64 [rows]


class Units:
    """The new units of one level: row r of R goes from ``start[r]`` to ``start[r] + count[r]``.

    Attributes:
        start: a number if the rows are aligned, else [R].
        count: a number if all rows have as many, else [R].
        rows: [R] batch rows, ascending; None: all of them.
        size: S, the most that a row has.
        longest: units of the longest row after this call.
        indices: of rows that hold several documents, how these lie in the units of every level.
    """

    def __init__(
        self, start: Count, count: Count, rows: np.ndarray | None = None, indices: Indices | None = None
    ) -> None:
        self.start, self.count, self.rows, self.indices = start, count, rows, indices
        self.aligned = not isinstance(start, np.ndarray)
        self.full = not isinstance(count, np.ndarray)
        self.size: int = cast(int, count) if self.full else int(cast(np.ndarray, count).max(initial=0))
        end = start + count
        self.longest: int = cast(int, end) if self.aligned and self.full else int(np.max(end, initial=0))
        self.fresh = start == 0 if self.aligned else not cast(np.ndarray, start).any()
        self.finer: Units | None = None  # those of the next finer level in the same call
        self.numbers: Numbers | None = None  # of the clock that made it
        self._of: tuple[Units, int] | None = None  # whose numbers its own follow from, and by which factor

    @property
    def first(self) -> int:
        """The position at which aligned rows begin."""
        return cast(int, self.start)

    @property
    def end(self) -> Count:
        return self.start + self.count

    def starts(self, device: torch.device) -> Tensor:
        """[R, 1], or [1, 1] of aligned rows."""
        if self.aligned:
            return torch.full((1, 1), self.first, dtype=torch.int64, device=device)
        return self._numbers(device)[0][:, None]

    def counts(self, device: torch.device) -> Tensor:
        """[R, 1], or [1, 1] where all rows have as many."""
        if self.full:
            return torch.full((1, 1), self.size, dtype=torch.int64, device=device)
        return self._numbers(device)[1][:, None]

    def row_index(self, device: torch.device) -> Tensor | None:
        return None if self.rows is None else self._numbers(device)[2]

    def positions(self, device: torch.device) -> Tensor:
        """Unit positions, [S] of aligned rows, else [R, S] (past a row's count they run on)."""
        if self.aligned:
            return torch.arange(self.first, self.first + self.size, device=device)
        return self.starts(device) + torch.arange(self.size, device=device)

    def columns(self, device: torch.device) -> Tensor:
        return torch.arange(self.size, device=device)

    def rows_within_finer(self, device: torch.device) -> Tensor | None:
        """Which of the next finer level's rows these are, [R]; None: all of them, in order."""
        return None if self.rows is None else self._numbers(device)[3]

    def begins_block(self, block: int) -> bool:
        """Whether in some row the first new unit is the first of a block of so many."""
        return bool(np.any(self.start % block == 0))

    def held(self, factor: int) -> Units:
        """What these rows held before the call of the level that is coarser by ``factor``: nothing new."""
        before = Units(self.start // factor, 0, self.rows)
        before._of = self, factor
        return before

    def _numbers(self, device: torch.device) -> tuple[Tensor, ...]:
        if self._of is not None:
            finer, factor = self._of
            starts, counts, rows, within = finer._numbers(device)
            return starts // factor, counts * 0, rows, within
        if self.numbers is None:
            self.numbers = Numbers([self])
        return self.numbers.of(self, device)


class Numbers:
    """Starts, counts and row numbers of several levels, taken to the device together when the first is asked for."""

    def __init__(self, levels: Sequence[Units]) -> None:
        self.levels = levels
        self._parts: dict[int, tuple[Tensor, ...]] = {}

    def of(self, units: Units, device: torch.device) -> tuple[Tensor, ...]:
        """Start, count, batch row, and row among those of the next finer level, of each of the rows, [R]."""
        if not self._parts:
            self._upload(device)
        return self._parts[id(units)]

    def _upload(self, device: torch.device) -> None:
        columns, sizes = [], []
        for units in self.levels:
            R = next((len(part) for part in (units.rows, units.start, units.count) if isinstance(part, np.ndarray)), 0)
            rows = np.arange(R) if units.rows is None else units.rows
            within = np.arange(R) if units.finer is None else rows_within(units.finer, rows)
            columns.append(np.stack(np.broadcast_arrays(units.start, units.count, rows, within)))
            sizes.append(R)
        parts = upload(np.concatenate(columns, 1), device).split(sizes, 1)
        self._parts = {id(units): tuple(part.unbind(0)) for units, part in zip(self.levels, parts, strict=True)}


def upload(numbers: np.ndarray, device: torch.device) -> Tensor:
    """As int64 on the device, which nobody waits for."""
    packed = torch.from_numpy(numbers.astype(np.int64, copy=False))
    if device.type == "cuda":
        packed = packed.pin_memory()
    return packed.to(device, non_blocking=True)


class Clock:
    """The new units of all levels in one call that adds ``counts`` tokens to rows that hold ``lengths``.

    With ``whole_batches`` a level at which some row has something new keeps all rows.
    """

    def __init__(self, lengths: Count, counts: Count, strides: Sequence[int], whole_batches: bool = False) -> None:
        if isinstance(counts, np.ndarray) and len(counts) and (counts == counts[0]).all():
            counts = int(counts[0])
        if isinstance(lengths, np.ndarray) and isinstance(counts, int):
            counts = np.full_like(lengths, counts)
        self._units = {stride: _units(lengths, counts, stride, whole_batches) for stride in strides}
        if isinstance(counts, np.ndarray):
            levels = list(self._units.values())
            numbers = Numbers(levels)
            for finer, units in zip([None, *levels], levels, strict=False):
                units.finer, units.numbers = finer, numbers

    def units(self, stride: int) -> Units:
        return self._units[stride]


def _units(lengths: Count, counts: Count, stride: int, whole_batches: bool) -> Units:
    start = lengths // stride
    count = (lengths + counts) // stride - start
    if not isinstance(count, np.ndarray):
        return Units(start, count)
    rows = None
    if not count.all() and not (whole_batches and count.any()):
        rows = np.flatnonzero(count)
        count = count[rows]
        start = start[rows] if isinstance(start, np.ndarray) else start
    if isinstance(start, np.ndarray) and len(start) and (start == start[0]).all():
        start = int(start[0])
    if len(count) and (count == count[0]).all():
        count = int(count[0])
    elif not len(count):
        count = 0
    if isinstance(start, np.ndarray) and not len(start):
        start = 0
    return Units(start, count, rows)


def rows_within(outer: Units, rows: np.ndarray) -> np.ndarray:
    """Which rows of ``outer`` the batch rows ``rows`` are, all of which it has."""
    return rows if outer.rows is None else np.searchsorted(outer.rows, rows)
