"""Which units of which level are new in a call: host integers, counted from each row's own first token.

While all rows of a batch are alike, positions are plain ints and every index is a slice. Rows that differ ("ragged")
carry one integer each, and a level keeps only the rows in which it has something new.

Shape legend: R rows that have new units, S new units of a level at most in a row.
"""

from __future__ import annotations

from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import Tensor

Count = int | np.ndarray  # one number for all rows, or int64 [rows]


class Span:
    """The new units of one level: row r of the ``R`` rows goes from ``start[r]`` to ``start[r] + count[r]``."""

    def __init__(self, start: Count, count: Count, rows: np.ndarray | None = None) -> None:
        self.start = start
        self.count = count
        self.rows = rows  # batch rows, ascending; None: all of them
        self.even = isinstance(start, int) and isinstance(count, int)
        self.size: int = count if isinstance(count, int) else int(count.max(initial=0))
        self._slots: dict[int | None, tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    @property
    def end(self) -> Count:
        return self.start + self.count

    @cached_property
    def longest(self) -> int:
        """Units of the longest row after this call."""
        end = self.end
        return end if isinstance(end, int) else int(np.max(end, initial=0))

    @cached_property
    def fresh(self) -> bool:
        """No row has anything before this call."""
        return self.start == 0 if isinstance(self.start, int) else not self.start.any()

    def positions(self, device: torch.device) -> Tensor:
        """Unit positions, [S] if even, else [R, S] (past a row's count they run on)."""
        if self.even:
            return torch.arange(cast(int, self.start), cast(int, self.end), device=device)
        return self.starts(device) + torch.arange(self.size, device=device)

    def starts(self, device: torch.device) -> Tensor:
        """[R, 1] of a ragged span."""
        return torch.from_numpy(cast(np.ndarray, self.start)).to(device)[:, None]

    def row_index(self, device: torch.device) -> Tensor | None:
        return None if self.rows is None else torch.from_numpy(self.rows).to(device)

    def slots(self, ring: int | None, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where a ragged span's real units go: (span row, span column, batch row, slot), one entry per unit written.

        A ring of ``ring`` slots takes only the last ``ring`` units of a row.
        """
        if ring not in self._slots:
            count, start = cast(np.ndarray, self.count), cast(np.ndarray, self.start)
            kept = count if ring is None else np.minimum(count, ring)
            row = np.repeat(np.arange(len(count)), kept)
            column = np.arange(kept.sum()) - np.repeat(kept.cumsum() - kept, kept) + np.repeat(count - kept, kept)
            position = start[row] + column
            batch_row = row if self.rows is None else self.rows[row]
            slot = position if ring is None else position % ring
            packed = torch.from_numpy(np.stack((row, column, batch_row, slot))).to(device)
            self._slots[ring] = tuple(packed.unbind(0))  # type: ignore[assignment]
        return self._slots[ring]


class Clock:
    """The spans of all levels for one call that adds ``counts`` tokens to rows that hold ``lengths``."""

    def __init__(self, lengths: Count, counts: Count) -> None:
        if isinstance(lengths, int) and isinstance(counts, int):
            self.even = True
        else:
            self.even = False
            counts = counts + np.zeros_like(lengths)
            lengths = lengths + np.zeros_like(counts)
        self.lengths, self.counts = lengths, counts
        self._spans: dict[int, Span] = {}

    def span(self, stride: int) -> Span:
        if stride not in self._spans:
            start = self.lengths // stride
            count = (self.lengths + self.counts) // stride - start
            rows = None
            if isinstance(start, np.ndarray) and isinstance(count, np.ndarray) and not count.all():
                rows = np.flatnonzero(count)
                start, count = start[rows], count[rows]
            self._spans[stride] = Span(start, count, rows)
        return self._spans[stride]


def rows_within(outer: Span, inner: Span) -> np.ndarray | slice:
    """Index that takes the rows of ``outer`` to those of ``inner``, which is one of its coarser levels."""
    if inner.rows is None:
        return slice(None)
    return inner.rows if outer.rows is None else np.searchsorted(outer.rows, inner.rows)
