"""Resampled sums are those of units drawn one by one."""

from __future__ import annotations

import numpy as np
import pytest

from foveate import stats
from foveate.stats import intervals, ratio_by_turn, resampled_sums, spread


@pytest.mark.parametrize("at_once", [1, 50, 1 << 22])
def test_sums_are_of_units_drawn_with_replacement(monkeypatch, at_once) -> None:
    monkeypatch.setattr(stats, "DRAWN_AT_ONCE", at_once)
    values = np.random.default_rng(1).normal(size=(7, 3))
    sums = resampled_sums(values, seed=5, resamples=20)
    draw = np.random.default_rng(5)
    expected = [values[draw.integers(7, size=7)].sum(0) for _ in range(20)]
    np.testing.assert_allclose(sums, expected)


def test_intervals_of_a_mean_are_those_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=(400, 1))
    [low], [high] = intervals(resampled_sums(values, seed=0) / 400)
    error = values.std() / 20
    assert [low, high] == pytest.approx([values.mean() - 1.96 * error, values.mean() + 1.96 * error], abs=0.1 * error)


def test_a_resample_without_a_number_does_not_count() -> None:
    [low], [high] = intervals(np.array([[1.0], [np.nan], [1.0]]))
    assert [low, high] == [1, 1]


def test_ratios_are_taken_turn_by_turn() -> None:
    """A machine half as fast in the second turn: 2 and 8 seconds beside 1 and 2."""
    assert ratio_by_turn([2, 8, 3], [1, 2, 3]) == (2, 1, 4)  # the ratio of the medians is 1.5
    assert spread([3.0, 1.0, 2.5]) == (2.5, 1.0, 3.0)
