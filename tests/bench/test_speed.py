"""The benchmarks measure what they say; how fast anything is, no test can know."""

import json

import pytest

from foveate.bench import decode as decode_module
from foveate.bench import roofline
from foveate.bench import train as train_module
from foveate.bench.decode import time_decoding
from foveate.bench.peer_engines import RecomputingEngine
from foveate.bench.peers import Contender, make_models
from foveate.bench.train import time_training
from foveate.cli import main
from foveate.errors import FoveateError

WALK = "1@1 1@4 1@1:window8"
SHAPE = {"walk": WALK, "hidden_size": 16, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def quick_look_at_the_machine(monkeypatch) -> None:
    monkeypatch.setattr(roofline, "CPU_BYTES", 1 << 16)
    monkeypatch.setitem(roofline.PEAK_SIZE, "cpu", 64)


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
    assert ours.firings == {"1": 1.0, "4": 0.5}  # of positions 10 and 11 one completes a unit
    assert ours.predicted is not None
    assert ours.predicted["state_bytes"] <= ours.state_bytes  # which counts what is reserved ahead


def test_a_context_too_long_to_read_is_filled(models, monkeypatch) -> None:
    monkeypatch.setattr("foveate.bench.decode.READ_FLOPS", 0)
    notes: list[str] = []
    results = list(time_decoding(models, context=50, tokens=1, repeats=1, note=notes.append))
    assert all(r.prefill_tokens_per_s is None for r in results)
    assert any("random numbers" in note for note in notes)


def test_generate_and_a_bare_loop_leave_the_state_alone(models) -> None:
    results = list(time_decoding(models, context=[6, 12], batch=2, tokens=3, repeats=2, through_generate=True))
    assert [r.state_bytes for r in results if r.name == "llama"] == [2 * 3 * 2 * 16 * 4 * n for n in (6, 12)]
    for r in results:  # of both rows
        assert r.tokens_per_s == pytest.approx(2 * 1e3 / r.ms_per_token)


def test_training_times_a_step_of_each(models, monkeypatch) -> None:
    """Steps that take 1 s of the first model, 2 s of the second, and so on, by the clock that times them."""
    seconds = {}
    step = train_module._Subject.step

    def timed(subject) -> float:
        step(subject)
        return seconds.setdefault(subject.name, 1.0 + len(seconds))

    monkeypatch.setattr(train_module._Subject, "step", timed)
    monkeypatch.setattr(train_module.MatmulPeak, "measure", lambda product: 1e6)
    results = time_training(models, context=8, batch=2, steps=2, peak=True)
    assert [r.name for r in results] == list(models)
    for slow, r in enumerate(results, 1):
        assert (r.tokens_per_s_low, r.train_tokens_per_s, r.tokens_per_s_high) == pytest.approx((2 * 8 / slow,) * 3)
        assert (r.ratio_low, r.ratio, r.ratio_high) == pytest.approx((1 / slow,) * 3), "to the speed of the first"
        assert r.mfu == pytest.approx(r.predicted["train_flops_per_token"] * r.train_tokens_per_s / 1e6)


def test_ratios_of_decoding_are_of_times_to_those_of_the_first(models, monkeypatch) -> None:
    seconds = {}
    monkeypatch.setattr(
        decode_module._Subject, "decode", lambda one, tokens: seconds.setdefault(one.name, 1.0 + len(seconds))
    )
    results = list(time_decoding(models, context=4, batch=2, tokens=3, repeats=2))
    for slow, r in enumerate(results, 1):
        assert (r.ratio_low, r.ratio, r.ratio_high) == (slow, slow, slow)
        assert (r.ms_per_token, r.tokens_per_s) == (1e3 * slow, 2 / slow)


def test_the_command_prints_a_line_per_measurement(capsys) -> None:
    shape = ["--hidden", "16", "--heads", "2", "--vocab", "32", "--repeats", "1", "--json"]
    assert main(["bench", "decode", "--walk", WALK, "--walk", "1@1", "--context", "8", "--tokens", "1", *shape]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["walk"] for line in found] == [WALK, "1@1"]
    assert {"walk", "context", "ms_per_token", "state_bytes"} <= set(found[0])
    assert main(["bench", "train", "--walk", "1@1", "--context", "8", "--batch", "1", "--peer", "llama", *shape]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found[1]["name"] == "llama"


COMMON = ["--hidden", "16", "--heads", "2", "--vocab", "32", "--json"]
TWO = ["--walk", "2@1", "--walk", WALK]


def lines(capsys, *words: str) -> list[dict]:
    assert main(["bench", *words, *COMMON]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_setting_is_measured_in_one_run(capsys, tmp_path) -> None:
    settings = [
        "--context",
        "8",
        "--context",
        "16",
        "--batch",
        "1",
        "--batch",
        "2",
        "--dtype",
        "fp32",
        "--dtype",
        "bf16",
    ]
    found = lines(
        capsys, "decode", *TWO, *settings, "--tokens", "1", "--repeats", "2", "--plot", str(tmp_path / "plots")
    )
    assert len({(r["name"], r["context"], r["batch"], r["dtype"]) for r in found}) == len(found) == 16
    for r in found:
        assert r["against"] == "2@1"
        assert 0 < r["ratio_low"] <= r["ratio"] <= r["ratio_high"]
        assert r["over_roofline"] > 0
        assert r["roofline_ms"] == pytest.approx(1e3 * r["read_bytes"] / r["bandwidth"], rel=1e-3)
    assert [r["ratio"] for r in found if r["name"] == "2@1"] == [1.0] * 8
    half = {r["dtype"]: r["weight_bytes"] for r in found}
    # packed: the head is a copy, small fp32 layers are there twice
    assert half["float32"] / 4 < half["bfloat16"] < 0.6 * half["float32"]
    assert len(list((tmp_path / "plots").iterdir())) == 8


def test_rows_may_differ_in_length(capsys) -> None:
    options = ["--ragged", "--batch", "4", "--context", "24", "--tokens", "4", "--repeats", "1"]
    plain, ours, llama = lines(capsys, "decode", *TWO, "--peer", "llama", *options)
    assert all(r["ragged"] and r["batch"] == 4 for r in (plain, ours, llama))
    assert ours["firings"]["4"] > 0.25, "rows at different phases"
    assert main(["bench", "decode", *TWO, *COMMON, "--ragged"]) == 2
    assert "at least 2" in capsys.readouterr().err


def test_ratios_are_to_the_model_that_is_named(capsys) -> None:
    options = ["--context", "8", "--repeats", "1", "--against", "hourglass:3"]
    found = lines(capsys, "train", "--walk", "2@1", "--walk", "hourglass:3", *options)
    assert {r["against"] for r in found} == {found[1]["name"]}
    assert found[1]["ratio"] == 1.0
    assert all(r["mfu"] > 0 for r in found)
    assert main(["bench", "train", *TWO, *COMMON, "--against", "llama"]) == 2
    assert "not measured" in capsys.readouterr().err


@pytest.mark.slow
def test_memory_is_counted_and_its_peak_measured(capsys) -> None:
    [found] = lines(capsys, "memory", "--walk", "2@1", "--context", "64", "--dtype", "bf16")
    assert found["peak_bytes"] > found["training_state_bytes"]


def test_memory_without_the_peak_is_quick(capsys) -> None:
    options = ["--no-peak", "--context", "256", "--batch", "2"]
    found = lines(capsys, "memory", *TWO, "--walk", "2@1:fovea4,groups=4,scales=2/4", "--peer", "llama", *options)
    for r in found:
        assert r["peak_bytes"] is None
        assert r["saved_bytes"] == pytest.approx(r["predicted"]["saved_bytes"], rel=0.15)
        assert r["saved_ratio"] == r["saved_bytes"] / found[0]["saved_bytes"]
        assert r["state_bytes"] >= r["predicted"]["state_bytes"]
    assert main(["bench", "memory", *TWO, *COMMON[:-1], "--no-peak", "--context", "16"]) == 0
    assert "saved" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["decode", "memory", "train"])
def test_what_does_not_fit_is_left_out_before_memory_is_taken(capsys, monkeypatch, kind) -> None:
    monkeypatch.setattr("foveate.bench.room.free_memory", lambda device: 0)
    assert main(["bench", kind, "--walk", "2@1", "--context", "64", *COMMON]) == 2
    err = capsys.readouterr().err
    assert "2@1 at" in err
    assert "left out, it would take about" in err
    assert "nothing was measured" in err


def test_a_context_that_does_not_fit_leaves_the_shorter_ones(models, monkeypatch) -> None:
    monkeypatch.setattr("foveate.bench.room.free_memory", lambda device: 60_000)
    found = [(r.context, r.name) for r in time_decoding(models, context=[16, 64, 256], tokens=1, repeats=1)]
    assert (16, WALK) in found
    assert (256, WALK) not in found
    assert (256, "2@1:fovea4,groups=4,scales=2/4") in found, "its state does not grow"


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


def test_a_token_is_profiled(capsys) -> None:
    options = ["--profile", "--context", "8", "--tokens", "4", "--repeats", "1"]
    [found] = lines(capsys, "decode", "--walk", "2@1", *options)
    profile = found["profile"]
    assert 0 < profile["products_ms"] < profile["operations_ms"]
    inside = profile["products_ms"] / found["ms_per_token"]
    assert profile["share_outside"] == pytest.approx(max(0, 1 - inside))
    assert sum(calls for name, (_, calls) in profile["longest"].items() if name == "aten::mm") in (0, 2 * 4 + 1)
    assert main(["bench", "decode", "--walk", "2@1", *options, *COMMON[:-1]]) == 0
    assert "outside matrix products" in capsys.readouterr().out


def test_compiled_models_are_timed_alike(monkeypatch) -> None:
    compiled = []

    def compile_one(function, **options):
        compiled.append(function)
        return function

    monkeypatch.setattr("torch.compile", compile_one)
    models, notes = make_models([SHAPE], ["llama"], vocab_size=32), []
    trained = time_training(models, context=16, batch=1, steps=1, compiled=True, note=notes.append)
    assert [r.compiled for r in trained] == [True, True]
    assert compiled == [given.model for given in models.values()]
    decoded = list(time_decoding(models, context=[10, 40], tokens=9, repeats=2, compiled=True, note=notes.append))
    assert [r.compiled for r in decoded] == [True] * 4
    assert len(compiled) == 4  # our step and Llama's forward
    assert sum("compiling" in line for line in notes) == 6
    with pytest.raises(FoveateError, match="rows of different lengths"):
        time_decoding(models, context=10, batch=2, ragged=True, compiled=True)


def test_a_peer_that_is_not_compiled_is_named() -> None:
    llama = make_models([SHAPE], ["llama"], vocab_size=32)["llama"]
    models = {"other": Contender(model=llama.model, engine=RecomputingEngine, spec=None)}
    with pytest.raises(FoveateError, match="are not compiled here"):
        list(time_decoding(models, context=10, compiled=True))
