"""Curves over distance with their uncertainty, and how far back they reach.

A curve is what a treatment of the context costs, in nats, at each distance d = 1, 2, … past the boundary: the token at
distance d has d - 1 untouched tokens before it. Its **horizon** is the number of untouched tokens after which it stays
within a tolerance of nothing, the tolerance being a share of the curve's own mean over its first distances.

One mean over sequences is noisy at each distance, and "the last distance outside of the tolerance" would be the last
accident. More untouched context can only help a good predictor, so the curve is judged by the decreasing function
nearest to it (isotonic regression), which needs no choice of bandwidth. That function exceeds a level t up to the
distance where the running sum of (curve - t) is largest, which is computed for all resamples at once.

Legend: N sequences, D distances, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foveate.stats import INTERVAL, intervals, resampled_sums

RESAMPLES = 2000  # of whole curves: ten thousand would take a gigabyte for a sweep
SMALLEST_NATS = 1e-3  # a tolerance is at least this: half precision alone is as far from nothing
BINS_PER_OCTAVE = 3
LEAST_DOCUMENTS = 10  # fewer say too little about other documents


def rounded(values: np.ndarray) -> list[float]:
    """As JSON; whole numbers stay whole."""
    return values.tolist() if values.dtype.kind == "i" else [round(float(value), 6) for value in values]


@dataclass(frozen=True, kw_only=True)
class Band:
    """A mean over sequences with its 95% interval, at each of ``distance``."""

    distance: np.ndarray  # float64 or int64 [points]
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def to_json(self) -> dict[str, list[float]]:
        """Of nats."""
        return {"distance": rounded(self.distance), "delta_nats": rounded(self.mean)} | {
            "ci_low": rounded(self.low),
            "ci_high": rounded(self.high),
        }


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """Untouched tokens after which a treatment of the text before them no longer matters, with a 95% interval.

    ``farthest`` is the longest distance there was: a horizon or an end of its interval that equals it means "at least".
    """

    tokens: int
    low: int
    high: int
    tolerance_nats: float
    farthest: int

    def __str__(self) -> str:
        return f"{self._text(self.tokens)} [{self._text(self.low)}, {self._text(self.high)}]"

    def _text(self, tokens: int) -> str:
        return f"≥{tokens}" if tokens == self.farthest else f"{tokens}"


@dataclass(frozen=True, kw_only=True)
class Share:
    """A ratio of two curves' sums, with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """A curve, the mean over sequences, and the same of each bootstrap resample of them, or of their documents."""

    mean: np.ndarray  # float64 [D]
    samples: np.ndarray  # float64 [R, D]

    @classmethod
    def of(cls, values_ND: np.ndarray, *, seed: int, document_N: np.ndarray | None = None) -> Resampled:
        """Of one seed the resamples are of the same sequences, whatever the values: curves stay paired.

        Whole documents are resampled where their numbers ``document_N`` are given and there are enough of them, since
        sequences of one document are alike; else sequences.
        """
        counted = np.hstack([values_ND, np.ones((len(values_ND), 1))])
        if document_N is not None and len(np.unique(document_N)) >= LEAST_DOCUMENTS:
            _, unit_N = np.unique(document_N, return_inverse=True)
            units = np.zeros((unit_N.max() + 1, counted.shape[1]))
            np.add.at(units, unit_N, counted)
            counted = units
        sums = resampled_sums(counted, seed=seed, resamples=RESAMPLES)
        return cls(mean=values_ND.mean(0), samples=sums[:, :-1] / sums[:, -1:])

    def band(self) -> Band:
        """The curve with an interval at each distance."""
        low, high = intervals(self.samples)
        return Band(distance=np.arange(1, len(self.mean) + 1), mean=self.mean, low=low, high=high)

    def binned(self) -> Band:
        """The same over bins that widen with distance, for the eye; a bin stands at its geometric middle."""
        D = len(self.mean)
        edges = np.unique(np.round(2 ** np.arange(0, np.log2(D + 1), 1 / BINS_PER_OCTAVE)).astype(int))
        # what is left at the end is part of the last bin, not a narrow and noisy one
        edges = np.append(edges[edges * 2 ** (1 / BINS_PER_OCTAVE) <= D + 1], D + 1) if D > 1 else np.array([1, 2])

        def bins(values: np.ndarray) -> np.ndarray:
            return np.add.reduceat(values, edges[:-1] - 1, axis=-1) / np.diff(edges)

        low, high = intervals(bins(self.samples))
        middle = np.sqrt(edges[:-1] * (edges[1:] - 1))
        return Band(distance=middle, mean=bins(self.mean), low=low, high=high)


def reach(curves_RD: np.ndarray, tolerance_R: np.ndarray) -> np.ndarray:
    """Of each curve, the distance up to which its nearest decreasing function exceeds the tolerance: int64 [R]."""
    excess = np.cumsum(curves_RD - tolerance_R[:, None], axis=1)
    return np.pad(excess, ((0, 0), (1, 0))).argmax(1)  # the first of equals: nothing at all reaches 0


def tolerance(curves_RD: np.ndarray, share: float, near: int) -> np.ndarray:
    """``share`` of each curve's mean over its first ``near`` distances: float64 [R]."""
    return np.maximum(share * curves_RD[:, :near].mean(1), SMALLEST_NATS)


def horizon(curve: Resampled, *, share: float, near: int) -> Horizon:
    """Where the curve comes within ``share`` of its mean over the first ``near`` distances, for good.

    A curve whose mean over these is not surely positive has nowhere to come from: its horizon is 0.
    """
    level = tolerance(curve.mean[None], share, near)
    tokens = int(reach(curve.mean[None], level)[0])
    found_R = reach(curve.samples, tolerance(curve.samples, share, near))
    low, high = np.quantile(found_R, INTERVAL, method="nearest")
    if np.quantile(curve.samples[:, :near].mean(1), INTERVAL[0]) <= SMALLEST_NATS:
        tokens = low = 0
    return Horizon(
        tokens=tokens, low=int(low), high=int(high), tolerance_nats=float(level[0]), farthest=len(curve.mean)
    )


def share_of(part: Resampled, whole: Resampled) -> Share | None:
    """The sum of one curve over that of another; None where the other is not surely positive."""
    wholes_R = whole.samples.sum(1)
    if np.quantile(wholes_R, INTERVAL[0]) <= SMALLEST_NATS:
        return None
    low, high = intervals(part.samples.sum(1) / wholes_R)
    return Share(value=float(part.mean.sum() / whole.mean.sum()), low=float(low), high=float(high))
