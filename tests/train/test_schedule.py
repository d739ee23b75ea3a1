from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from foveate.train.schedule import rate, warmup_steps


@pytest.mark.parametrize("kind", ["cosine", "linear", "wsd", "constant"])
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


@pytest.mark.parametrize(("steps", "warmup", "final"), [(100, 10, 0.1), (37, 0, 0.0), (12, 5, 0.5)])
@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_is_that_of_transformers_one_step_later(kind, steps, warmup, final) -> None:
    """Which takes its first step at rate 0, and would take the last one after the end."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    name, extra = {
        "cosine": ("cosine_with_min_lr", {"min_lr_rate": final}),
        "linear": ("polynomial", {"lr_end": final, "power": 1.0}),
        "constant": ("constant_with_warmup", {}),
    }[kind]
    theirs = get_scheduler(name, optimizer, warmup + 1, steps, extra).lr_lambdas[0]
    for step in range(steps):
        assert rate(step, kind=kind, steps=steps, warmup=warmup, final=final) == pytest.approx(theirs(step + 1))


def test_wsd_stays_until_the_last_fifth_and_falls_evenly() -> None:
    rates = [rate(step, kind="wsd", steps=100, warmup=10, final=0.0) for step in range(100)]
    assert rates[10:80] == [1.0] * 70
    assert rates[79:] == pytest.approx([1 - step / 20 for step in range(21)])
