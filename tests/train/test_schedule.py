from __future__ import annotations

import pytest

from foveate.train.schedule import rate, warmup_steps


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_rises_to_the_peak_and_ends_where_it_should(kind) -> None:
    rates = [rate(step, kind=kind, steps=100, warmup=10, final=0.1) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(1.0 if kind == "constant" else 0.1)


def test_a_run_of_one_step_has_a_rate() -> None:
    assert 0 < rate(0, kind="cosine", steps=1, warmup=0, final=0.0) <= 1


def test_warmup_below_one_is_a_fraction() -> None:
    assert (warmup_steps(0.05, 90), warmup_steps(7, 90), warmup_steps(0, 90)) == (5, 7, 0)
