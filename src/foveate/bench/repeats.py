"""What repeated measurements come to: medians with their spread, and ratios of measurements made in the same turn.

A machine's speed drifts, for all models alike; so a ratio is taken turn by turn, and the median of those is given.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """Median, smallest and largest of some measurements."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def ratio(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """Of ``values`` to ``reference``, turn by turn."""
    return spread([value / other for value, other in zip(values, reference, strict=True)])
