"""Scores of single windows, and differences with their intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from foveate.bench.paired import Scores, difference, score
from foveate.data.tokenizer import make_tokenizer
from foveate.errors import FoveateError
from foveate.train.evaluate import evaluate

TEXTS = ["a", "the naïve cat sat on a mat", "x" * 64, "and so it went on — " * 9]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer("bytes", list)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=257, max_position_embeddings=64, initializer_range=0.3, **shape)
    ).eval()


@pytest.mark.parametrize("context", [1, 16, 64])
def test_the_windows_add_up_to_the_evaluation(model, tokenizer, context, monkeypatch) -> None:
    monkeypatch.setattr("foveate.scoring.TOKENS_PER_BATCH", 3 * context)
    told: list[int] = []
    scores = score(model, tokenizer, TEXTS, context=context, advance=told.append)
    expected = evaluate(model, tokenizer, TEXTS, context=context, progress=False)
    assert scores.evaluation.bpb == pytest.approx(expected.bpb, rel=1e-5)
    assert (scores.evaluation.tokens, scores.evaluation.bytes) == (expected.tokens, expected.bytes)
    assert sum(told) == expected.tokens
    for document, text in enumerate(TEXTS):
        alone = score(model, tokenizer, [text], context=context)
        mine = scores.document == document
        assert scores.nats[mine] == pytest.approx(alone.nats, rel=1e-4)
        assert scores.tokens[mine].tolist() == alone.tokens.tolist()


def test_nothing_to_score(model, tokenizer) -> None:
    with pytest.raises(FoveateError, match="no text to score"):
        score(model, tokenizer, [], context=8)
    with pytest.raises(FoveateError, match="--context: 65 must be from 1 to 64"):
        score(model, tokenizer, TEXTS, context=65)


def scores(nats, *, documents=1, ids="same", tokens=10) -> Scores:
    nats = np.asarray(nats, float)
    return Scores(
        context=10,
        nats=nats,
        tokens=np.full(len(nats), tokens),
        document=np.arange(len(nats)) * documents // len(nats),
        text_bytes=np.full(documents, 40 * len(nats) // documents),
        ids_digest=ids,
    )


def compared(a: Scores, b: Scores):
    return difference(a, b, name="a", against="b")


def test_a_constant_difference_has_no_width() -> None:
    found = compared(scores(np.full(20, 3.0)), scores(np.full(20, 1.0)))
    expected = 2 / np.log(2) / 40
    assert (found.bpb, found.low, found.high) == pytest.approx((expected,) * 3)
    assert (found.unit, found.units) == ("window", 20)


def test_pairing_removes_what_the_models_share() -> None:
    draw = np.random.default_rng(0)
    hard = draw.normal(50, 20, 100)
    found = compared(scores(hard + draw.normal(0.5, 0.1, 100)), scores(hard))
    assert 0 < found.low < found.bpb < found.high
    assert found.high - found.low < 0.2 * found.bpb


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    draw = np.random.default_rng(0)
    truth = 1 / np.log(2) / 40
    held = 0
    for _ in range(60):
        found = compared(scores(draw.normal(1, 3, 60)), scores(np.zeros(60)))
        held += found.low <= truth <= found.high
    assert 50 <= held <= 60


@pytest.mark.parametrize(
    ("documents", "ids", "unit", "units"),
    [(2, "same", "window", 60), (30, "same", "document", 30), (6, "other", "document", 6)],
)
def test_what_is_resampled(documents, ids, unit, units) -> None:
    draw = np.random.default_rng(0)
    a, b = scores(draw.normal(5, 1, 60), documents=documents), scores(np.ones(60), documents=documents, ids=ids)
    found = compared(a, b)
    assert (found.unit, found.units) == (unit, units)
    assert found.bpb == pytest.approx(a.evaluation.bpb - b.evaluation.bpb)
    assert found.low < found.bpb < found.high


def test_too_few_units_give_no_interval() -> None:
    found = compared(scores([1, 2, 3]), scores([1, 1, 1]))
    assert (found.low, found.high) == (None, None)
    assert found.bpb > 0
