import numpy as np
import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from foveate.errors import FoveateError
from foveate.serve.choice import Chooser, Sampling, likeliest, log_probabilities

V = 50


def make_logits(seed: int, size: int = V, scale: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size, scale=scale)


@pytest.mark.parametrize("seed", range(5))
def test_what_may_be_drawn_is_what_transformers_keeps(seed: int) -> None:
    logits = make_logits(seed)
    for sampling, warper in (
        (Sampling(top_k=7), TopKLogitsWarper(7)),
        (Sampling(top_p=0.7), TopPLogitsWarper(0.7)),
        (Sampling(min_p=0.05), MinPLogitsWarper(0.05)),
    ):
        expected = torch.isfinite(warper(None, torch.tensor(logits)[None])[0]).numpy()
        scores = logits - logits.max()
        assert np.array_equal(Chooser(sampling, [], V)._kept(scores, 0.0), expected), sampling


def test_draws_follow_the_distribution() -> None:
    logits = make_logits(3, 6, 1.0)
    sampling = Sampling(temperature=0.7, top_k=4, seed=5)
    warped = TopKLogitsWarper(4)(None, TemperatureLogitsWarper(0.7)(None, torch.tensor(logits)[None]))
    chooser, counts = Chooser(sampling, [], 6), np.zeros(6)
    for _ in range(4000):
        token = chooser.decide(logits)
        assert token is not None
        counts[token] += 1
        chooser.accept(token)
    assert np.abs(counts / 4000 - warped.softmax(-1)[0].numpy()).max() < 0.03  # four standard deviations


def test_penalties_and_biases() -> None:
    logits = make_logits(1)
    repeated = Chooser(Sampling(repetition_penalty=1.7), [3, 9], V)
    repeated.accept(4)
    expected = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([[3, 9, 4]]), torch.tensor(logits)[None])[0]
    assert np.allclose(repeated._adjusted(logits.copy()), expected)
    told = Chooser(Sampling(presence_penalty=0.5, frequency_penalty=0.25, logit_bias={2: 3.5}), [3], V)
    for token in (7, 7, 8):
        told.accept(token)
    change = told._adjusted(logits.copy()) - logits
    assert {token: change[token].round(9) for token in np.flatnonzero(change)} == {2: 3.5, 7: -1.0, 8: -0.75}


SAMPLINGS = [
    Sampling(temperature=0),
    Sampling(seed=1),
    Sampling(seed=1, temperature=0.3, top_k=3),
    Sampling(seed=1, temperature=1.5, top_p=0.6),
    Sampling(seed=1, min_p=0.2, repetition_penalty=1.4),
    Sampling(seed=1, top_k=9, top_p=0.9, min_p=0.05),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_what_is_certain_no_small_change_of_the_scores_changes(sampling: Sampling) -> None:
    random, tolerance = np.random.default_rng(0), 0.02
    unsure = 0
    for trial in range(150):
        logits = make_logits(trial, 12)
        if trial % 2:  # what is cut off may hang by a hair, too
            logits = logits.round(1)
        chooser = Chooser(sampling, [1, 2], 12, number=trial)
        token = chooser.decide(logits, tolerance)
        if token is None:
            unsure += 1
            continue
        for _ in range(20):
            moved = logits + random.choice([-1, 1], 12) * tolerance * random.choice([0.5, 0.999])
            assert chooser.decide(moved) == token
    assert 0 < unsure < 75


def test_a_temperature_next_to_nothing_takes_the_likeliest() -> None:
    for seed in range(20):
        logits = make_logits(seed)
        assert Chooser(Sampling(temperature=1e-300, seed=seed), [], V).decide(logits, 1e-4) == logits.argmax()


def test_seeds() -> None:
    def draw(seed: int | None, number: int = 0) -> list[int | None]:
        chooser = Chooser(Sampling(seed=seed), [], V, number)
        out = []
        for step in range(10):
            out.append(chooser.decide(make_logits(step)))
            chooser.accept(0)
        return out

    assert draw(1) == draw(1)
    assert draw(-1) == draw(-1)
    assert len({tuple(draw(*given)) for given in [(1,), (2,), (-1,), (1, 1), (None,), (None,)]}) == 6


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_an_error(value: float) -> None:
    logits = make_logits(0)
    logits[3] = value
    with pytest.raises(FoveateError, match="not numbers"):
        Chooser(Sampling(), [], V).decide(logits)


def test_log_probabilities() -> None:
    logits = make_logits(0)
    expected = torch.tensor(logits).log_softmax(-1)
    assert np.allclose(log_probabilities(logits), expected)
    values, ids = expected.topk(3)
    assert [token for token, _ in likeliest(log_probabilities(logits), 3)] == ids.tolist()
    assert np.allclose([value for _, value in likeliest(log_probabilities(logits), 3)], values)
    assert likeliest(log_probabilities(logits), 0) == []
