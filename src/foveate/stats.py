"""What measurements come to: bootstrap intervals over units of text, and medians of repeats taken in turn.

Legend: U units (such as documents), K things summed, R resamples.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
INTERVAL = (0.025, 0.975)  # the quantiles between which 95% lie
ENOUGH_DOCUMENTS = 30  # to resample whole documents; of fewer, their windows
FEWEST_UNITS = 5  # for an interval
DRAWN_AT_ONCE = 1 << 22


def resampled_sums(values_UK: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """The sums of each column over U units drawn with replacement, the same draws for all columns: float64 [R, K]."""
    draw = np.random.default_rng(seed)
    U = len(values_UK)
    at_once = max(1, DRAWN_AT_ONCE // U)
    sums = []
    for first in range(0, resamples, at_once):
        rows = min(at_once, resamples - first)
        # a unit drawn n times counts n times: one matrix product instead of gathering every column
        drawn = draw.integers(U, size=(rows, U)) + U * np.arange(rows)[:, None]
        times_RU = np.bincount(drawn.ravel(), minlength=rows * U).reshape(rows, U)
        sums.append(times_RU.astype(np.float64) @ values_UK)
    return np.concatenate(sums)


def intervals(samples_RK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 2.5% and the 97.5% quantile of each column, over the resamples in which it is a number."""
    low_K, high_K = np.nanquantile(samples_RK, INTERVAL, axis=0)
    return low_K, high_K


class Spread(NamedTuple):
    """Median, smallest and largest of some measurements."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def ratio_by_turn(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """Of ``values`` to ``reference``, turn by turn: a machine's speed drifts, for what is measured in a turn alike."""
    return spread([value / other for value, other in zip(values, reference, strict=True)])
