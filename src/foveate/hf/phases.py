"""Which rows of a batch go on, step by step, so that their coarse layers fall due together.

A layer of stride k works for a row when the row's length is a multiple of k. Rows of different lengths would call it at
almost every step, each time for a few rows, and read its weights each time. Rows that wait until their phases agree, at
most k - 1 steps in all and once, call it every k steps for all rows.
"""

from __future__ import annotations

import numpy as np

from foveate.spec import HierarchySpec

LEAST_GAIN = 4  # times the coarsest stride: for fewer tokens nobody waits


def coarsest_stride(spec: HierarchySpec) -> int:
    """Of the layers that there are; 1 if there are none."""
    return max((run.stride for run in spec.runs if run.layers), default=1)


class Phases:
    """Rows that hold ``lengths`` [B] tokens and are each to gain up to ``tokens``; ``stride``: the coarsest in use."""

    def __init__(self, lengths: np.ndarray, stride: int, tokens: int) -> None:
        self.stride = stride if tokens >= LEAST_GAIN * stride else 1
        self._joins = lengths % self.stride
        self._joined = np.zeros(len(lengths), dtype=bool)
        waits = (self._joins - np.arange(self.stride)[:, None]) % self.stride
        self._phase = int(waits.sum(1).argmin())

    def step(self) -> np.ndarray:
        """Whether each row [B] goes on by a token in the next step; some row does."""
        while True:
            self._joined |= self._joins == self._phase
            self._phase = (self._phase + 1) % self.stride
            if self._joined.any():
                return self._joined

    def keep(self, rows: np.ndarray) -> None:
        """Only these rows [B, bool] are left, at least one."""
        self._joins, self._joined = self._joins[rows], self._joined[rows]
