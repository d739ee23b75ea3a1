"""The truncation probe on models of which it is known how much context they need, and against single calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from foveate.data.tokenizer import make_tokenizer
from foveate.errors import FoveateError
from foveate.probes.truncate import TruncatePlan, _curve, _heat_map, probe_truncate, truncate_plots
from foveate.report.figures import WIDTH
from probes.planted import BagOfWords, CopyHundredBack, LastTwenty, repeating_texts, topical_texts, twenty_texts

TOKENIZER = make_tokenizer("bytes", list)
SURE, REST = -np.log(0.9), -np.log(0.1 / 256)


def probe(model, texts, *, folder=None, batch=None, **plan):
    plan = TruncatePlan(**{"context": 256, "sequences": 16, **plan})
    return probe_truncate(model, TOKENIZER, texts, plan, folder=folder, batch=batch, progress=False)


@pytest.mark.parametrize(
    ("model", "texts", "horizon"),
    [
        (LastTwenty, twenty_texts, "20 [20, 20]"),
        (CopyHundredBack, repeating_texts, "100 [100, 100]"),
        (BagOfWords, topical_texts, "≥128 [≥128, ≥128]"),
    ],
)
def test_what_was_planted_is_found(model, texts, horizon) -> None:
    assert str(probe(model(), texts(8, 1100)).horizon) == horizon


def test_losses_are_those_of_a_model_that_needs_a_hundred_tokens() -> None:
    """With fewer it copies an a, which a text of 23 letters has once in 23; of 64 to 127, 28 tokens have enough."""
    found = probe(CopyHundredBack(), repeating_texts(8, 1100))
    assert found.contexts == ((0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 63), (64, 127), (128, 255))
    wrong = SURE + (REST - SURE) * 22 / 23
    assert found.nats[:7] == pytest.approx(np.full(7, wrong), rel=0.1)
    assert found.nats[7] == pytest.approx(wrong + (SURE - wrong) * 28 / 64, rel=0.1)
    assert found.nats[8] == pytest.approx(SURE, abs=1e-5)
    # the token at distance d has d - 1 before it
    assert np.abs(found.curve.mean[100:]).max() < 1e-5
    assert (found.curve.mean[90:100] > 1).all()
    assert found.delta.mean == pytest.approx(found.nats - found.nats[-1])


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=257, max_position_embeddings=64, initializer_range=0.5, **shape)
    ).eval()


def test_every_token_is_scored_after_just_so_much_text(llama) -> None:
    text = twenty_texts(1, 16)[0]
    found = probe(llama, [text, text], context=16, tokens=8)
    ids = list(text.encode())
    for at, (low, _) in enumerate(found.contexts):
        for token in range(8):
            place = 8 + token
            start = place if low == 0 else 8 + token // low * low - low
            with torch.no_grad():
                logits = llama(torch.tensor([[TOKENIZER.eos_token_id, *ids[start:place]]])).logits[0, -1]
            expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[place]))
            assert found.piece_nats[at, token] == pytest.approx(expected.item(), rel=1e-4)
    assert "".join(found.pieces) == text[8:]


def test_batches_change_nothing_and_an_interrupted_probe_goes_on(llama, tmp_path, monkeypatch) -> None:
    texts, plan = twenty_texts(3, 100), {"context": 32, "sequences": 6}
    whole = list(probe(llama, texts, **plan).records())
    assert list(probe(llama, texts, batch=2, folder=tmp_path, **plan).records()) == whole

    def unused(input_ids, logits_to_keep=0):
        raise AssertionError("all of it is there")

    monkeypatch.setattr(llama, "forward", unused)
    assert list(probe(llama, texts, folder=tmp_path, **plan).records()) == whole
    with pytest.raises(FoveateError, match="holds an experiment of another seed and text"):
        probe(llama, texts, folder=tmp_path, **plan, seed=1)


def test_figures_show_the_horizon_and_each_token() -> None:
    records = list(probe(LastTwenty(), twenty_texts(8, 600), context=64, tokens=5).records())
    assert [record["kind"] for record in records] == ["context"] * 7 + ["curve", "summary"] + ["token"] * 5
    curve, tokens = truncate_plots(records)
    assert ">context horizon 20 [20, 20]<" in curve.svg
    assert (tokens.name, tokens.png[:4]) == ("tokens", b"\x89PNG")
    for shown in ("16–31", "nats of each token", *(record["text"] for record in records[-5:])):
        assert f">{shown}<" in tokens.svg
    assert [plot.name for plot in truncate_plots(records[:-5])] == ["context"]


def test_figures_have_the_interval_and_room_for_each_token() -> None:
    records = list(probe(LastTwenty(), twenty_texts(8, 600), context=256, tokens=100).records())
    ax = _curve(records).axes[0]
    binned = next(record["binned"] for record in records if record["kind"] == "curve")
    reached = ax.collections[0].get_datalim(ax.transData)
    assert (reached.y0, reached.y1) == pytest.approx((min(binned["ci_low"]), max(binned["ci_high"])))
    tokens = [record for record in records if record["kind"] == "token"]
    assert _heat_map(records, tokens).get_figwidth() > 16
    assert _heat_map(records, tokens[:5]).get_figwidth() == WIDTH


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"context": 500}, "--context: 500 must be a power of two from 4"),
        ({"context": 2}, "--context: 2 must be a power of two from 4"),
        ({"sequences": 1}, "--sequences: 1 must be at least 2"),
        ({"tolerance": 0.0}, "--tolerance: 0.0 must be a share between 0 and 1"),
        ({"seed": -1}, "--seed: -1 must be at least 0"),
        ({"tokens": -1}, "--tokens: -1 must be at least 0"),
        ({"context": 4096}, "too short for one sequence of 4,096 tokens"),
    ],
)
def test_what_cannot_be_is_one_line(wrong, message) -> None:
    with pytest.raises(FoveateError, match=message):
        probe(LastTwenty(), twenty_texts(2, 600), **wrong)
