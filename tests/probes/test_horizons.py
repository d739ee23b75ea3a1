"""Horizons against a slow isotonic regression, and their intervals against repeated experiments."""

from __future__ import annotations

import numpy as np
import pytest

from foveate.probes.horizons import Resampled, horizon, reach, share_of, tolerance

DISTANCES = np.arange(1, 257)


def decreasing_fit(curve: np.ndarray) -> np.ndarray:
    """The decreasing function nearest to a curve, by pooling adjacent violators."""
    blocks: list[list[float]] = []  # mean and length
    for value in curve:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] <= blocks[-1][0]:
            mean, length = blocks.pop()
            total = blocks[-1][1] + length
            blocks[-1] = [(blocks[-1][0] * blocks[-1][1] + mean * length) / total, total]
    return np.concatenate([np.full(int(length), mean) for mean, length in blocks])


def test_reach_is_where_the_decreasing_fit_crosses() -> None:
    draw = np.random.default_rng(0)
    curves = 3 / DISTANCES**0.6 + draw.normal(0, 0.3, (50, 256))
    level = draw.uniform(0.05, 0.8, 50)
    slow = [(decreasing_fit(curve) > t).sum() for curve, t in zip(curves, level, strict=True)]
    assert reach(curves, level).tolist() == slow
    assert len(set(slow)) > 10


def test_a_step_is_found_where_it_is_and_an_accident_far_away_is_not() -> None:
    step = np.where(DISTANCES <= 20, 1.0, 0.0)
    accident = step + np.where(DISTANCES == 200, 0.5, 0.0)
    assert reach(np.stack([step, accident, 0 * step]), np.full(3, 0.05)).tolist() == [20, 20, 0]


def test_tolerance_is_a_share_of_the_first_distances() -> None:
    falling = np.maximum(9.0 - DISTANCES, 0)  # 8 down to 1: 4.5 on average
    curves = np.stack([np.where(DISTANCES <= 8, 2.0, 100.0), falling, np.zeros(256)])
    assert tolerance(curves, 0.05, 8).tolist() == pytest.approx([0.1, 0.225, 1e-3])


def sequences(mean: np.ndarray, number: int, draw: np.random.Generator) -> np.ndarray:
    """Values [N, D]: sequences differ in how much they suffer, and every token is noisy."""
    share = 1 + 0.5 * draw.standard_normal((number, 1))
    return mean * share + draw.normal(0, 0.5, (number, len(mean))) * (np.sqrt(mean) + 0.15)


@pytest.mark.parametrize(
    "mean", [np.exp(-DISTANCES / 20), 1 / DISTANCES, 0.3 * (DISTANCES <= 20)], ids=["exponential", "power", "step"]
)
def test_the_interval_holds_the_truth_as_often_as_it_says(mean) -> None:
    truth = int(reach(mean[None], tolerance(mean[None], 0.05, 8))[0])
    draw = np.random.default_rng(1)
    held = 0
    for _ in range(30):
        values = sequences(mean, 150, draw)
        found = horizon(Resampled.of(values, seed=0), share=0.05, near=8)
        assert found.low <= found.tokens <= found.high
        held += found.low <= truth <= found.high
    assert held >= 26  # of 30 at 95%, fewer than 26 once in 70 times


def test_noise_alone_has_no_horizon() -> None:
    values = np.random.default_rng(0).normal(0, 1, (100, 256))
    found = horizon(Resampled.of(values, seed=0), share=0.05, near=8)
    assert (found.tokens, found.low) == (0, 0)


def test_a_horizon_at_the_end_says_at_least() -> None:
    found = horizon(Resampled.of(np.ones((10, 64)), seed=0), share=0.05, near=8)
    assert str(found) == "≥64 [≥64, ≥64]"


@pytest.mark.parametrize("distances", [1, 2, 7, 256, 300])
def test_bins_widen_and_cover_every_distance_once(distances) -> None:
    values = np.random.default_rng(0).normal(1, 1, (20, distances))
    bins = Resampled.of(values, seed=0).binned()
    # a bin from a to b stands at the root of ab, the first at 1
    firsts, start = [], 1
    for middle in bins.distance:
        firsts.append(start)
        start = round(middle**2 / start) + 1
    assert start == distances + 1
    widths = np.diff([*firsts, start])
    assert (np.diff(widths) >= -1).all()
    means = [values.mean(0)[first - 1 : first - 1 + width].mean() for first, width in zip(firsts, widths, strict=True)]
    assert bins.mean.tolist() == pytest.approx(means)
    assert ((bins.low < bins.mean) & (bins.mean < bins.high)).all()


def test_a_band_is_about_two_standard_errors_wide() -> None:
    values = np.random.default_rng(0).normal(1, 3, (400, 5))
    band = Resampled.of(values, seed=0).band()
    assert band.distance.tolist() == [1, 2, 3, 4, 5]
    assert band.high - band.low == pytest.approx(2 * 1.96 * values.std(0) / 20, rel=0.1)
    assert (band.low + band.high) / 2 == pytest.approx(values.mean(0), abs=0.05)


def test_share() -> None:
    whole = Resampled.of(np.full((10, 4), 2.0), seed=0)
    part = Resampled.of(np.full((10, 4), 0.5), seed=0)
    found = share_of(part, whole)
    assert (found.value, found.low, found.high) == (0.25, 0.25, 0.25)
    assert share_of(part, Resampled.of(np.zeros((10, 4)), seed=0)) is None


def test_sequences_of_one_document_do_not_count_as_so_many() -> None:
    random = np.random.default_rng(0)
    document_N = np.repeat(np.arange(20), 10)
    values = random.normal(size=(20, 1))[document_N] + 0.1 * random.normal(size=(200, 4))
    alone, together = Resampled.of(values, seed=0), Resampled.of(values, seed=0, document_N=document_N)
    np.testing.assert_allclose(together.mean, alone.mean)
    np.testing.assert_allclose(together.samples.std(0), 1 / 20**0.5, rtol=0.35)
    assert (together.samples.std(0) > 2 * alone.samples.std(0)).all()
    few = Resampled.of(values, seed=0, document_N=document_N // 10)
    np.testing.assert_array_equal(few.samples, alone.samples)
