"""The benchmarks measure what they say; how fast anything is, no test can know."""

import json

import pytest

from foveate.bench.decode import time_decoding
from foveate.bench.peers import make_models
from foveate.bench.train import time_training
from foveate.cli import main
from foveate.errors import FoveateError

WALK = "1@1 1@4 1@1:window8"
SHAPE = {"walk": WALK, "hidden_size": 16, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def models():
    return make_models([SHAPE, {**SHAPE, "walk": "2@1:fovea4,groups=4,scales=2/4"}], ["llama"], vocab_size=32)


def test_decoding_times_every_model_at_every_context(models) -> None:
    results = list(time_decoding(models, context=[40, 10], tokens=2, repeats=3))
    assert [(r.name, r.context) for r in results] == [(name, context) for context in (10, 40) for name in models]
    for r in results:
        assert 0 < r.ms_low <= r.ms_per_token <= r.ms_high
        assert r.tokens_per_s == pytest.approx(1e3 / r.ms_per_token)
    ours = results[0]
    assert ours.firings == {"1": 1.0, "4": 0.25}
    assert ours.predicted is not None
    assert ours.predicted["state_bytes"] <= ours.state_bytes  # which counts what is reserved ahead


def test_a_context_too_long_to_read_is_filled(models, monkeypatch) -> None:
    monkeypatch.setattr("foveate.bench.decode.READ_FLOPS", 0)
    notes: list[str] = []
    results = list(time_decoding(models, context=50, tokens=1, repeats=1, note=notes.append))
    assert [r.prefill_tokens_per_s is None for r in results] == [True, True, False]
    assert any("random numbers" in note for note in notes)


def test_generate_and_a_bare_loop_leave_the_state_alone(models) -> None:
    results = list(time_decoding(models, context=[6, 12], batch=2, tokens=3, repeats=2, through_generate=True))
    assert [r.state_bytes for r in results if r.name == "llama"] == [2 * 3 * 2 * 16 * 4 * n for n in (6, 12)]


def test_training_times_a_step_of_each(models) -> None:
    results = time_training(models, context=8, batch=2, steps=2)
    assert [r.name for r in results] == list(models)
    assert all(r.tokens_per_s_low <= r.train_tokens_per_s <= r.tokens_per_s_high for r in results)


def test_the_command_prints_a_line_per_measurement(capsys) -> None:
    shape = ["--hidden", "16", "--heads", "2", "--vocab", "32", "--repeats", "1", "--json"]
    assert main(["bench", "decode", "--walk", WALK, "--walk", "1@1", "--context", "8", "--tokens", "1", *shape]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["walk"] for line in lines] == [WALK, "1@1"]
    assert {"walk", "context", "ms_per_token", "state_bytes"} <= set(lines[0])
    assert main(["bench", "train", "--walk", "1@1", "--context", "8", "--batch", "1", "--peer", "llama", *shape]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[1]["name"] == "llama"


def test_what_cannot_be_measured_is_refused(models, capsys) -> None:
    with pytest.raises(FoveateError, match="context is 0"):
        time_decoding(models, context=0)
    with pytest.raises(FoveateError, match="context is 1"):
        time_training(models, context=1, batch=1)
    assert main(["bench", "decode", "--walk", "1@1", "--hidden", "16", "--peer", "gpt5"]) == 2
    assert "choose one of llama" in capsys.readouterr().err
    assert main(["bench", "decode"]) == 2
    assert "--walk is missing" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_refused(capsys) -> None:
    assert main(["bench", "train", "--walk", "1@1", "--hidden", "16", "--device", "mars"]) == 2
    assert "mars" in capsys.readouterr().err
