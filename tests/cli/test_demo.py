"""foveate demo: small here, the same in all else."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from foveate.cli import main
from foveate.cli.demo import WALKS
from foveate.report.results import Results
from foveate.spec import HierarchySpec
from foveate.train.settings import TrainSettings


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))


def test_the_plain_twin_has_at_most_half_the_layers_and_more_work() -> None:
    plain, multi_scale = (HierarchySpec.parse(walk) for walk in WALKS.values())
    assert plain.strides == (1,)
    assert 2 * plain.n_layers <= multi_scale.n_layers
    assert sum(run.layers / run.stride for run in multi_scale.runs) < plain.n_layers


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert f"--out: {tmp_path} is not empty and holds no demo" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_demo_of_other_settings_is_left_alone(tmp_path, capsys) -> None:
    run = tmp_path / "demo" / "plain"
    run.mkdir(parents=True)
    (run / "foveate.yaml").write_text(TrainSettings(walk=WALKS["plain"], tokens=77).to_yaml())
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"foveate: --out: {run} was trained with --")
    assert error.endswith("; choose another folder, or train again with --overwrite\n")


@pytest.mark.slow
def test_the_whole_demo_and_again(tmp_path, capsys) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--quick", "--out", str(out)]) == 0
    first = capsys.readouterr()
    for expected in ("[1/4] plain: training 8@1", "[2/4] multi-scale", "The captain", "bits per byte", "index.html"):
        assert expected in first.out
    results = Results.parse((out / "results.jsonl").read_text())
    assert results.names == ["plain", "multi-scale"]
    plain, multi_scale = (results.one("training_memory", name) for name in results.names)
    assert multi_scale["kept_bytes"] < plain["kept_bytes"], "more layers in less memory"
    settings = [results.one("model", name)["settings"] for name in results.names]
    assert {key for key in settings[0] if settings[0][key] != settings[1][key]} == {"walk", "out"}

    # the second one as after an interruption: what was finished stands, what was not goes on from its checkpoint
    weights = (out / "plain" / "model.safetensors").read_bytes()
    (out / "multi-scale" / "manifest.json").unlink()
    assert main(["demo", "--quick", "--out", str(out), "--json"]) == 0
    second = capsys.readouterr()
    assert "it is trained already" in second.err
    assert "resuming from" in second.err
    assert (out / "plain" / "model.safetensors").read_bytes() == weights
    again = Results([json.loads(line) for line in second.out.splitlines()])
    for kind, key in (("quality", "bpb"), ("training_memory", "peak_bytes"), ("sample", "text")):
        for name in results.names:
            assert again.one(kind, name)[key] == results.one(kind, name)[key], (kind, name)


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path) -> None:
    out = tmp_path / "demo"
    words = ["demo", "--quick", "--tokens", "9000000", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "foveate", *words], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    log = out / "plain" / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    again = f"foveate demo --out {out} --tokens 9000000 --quick"
    assert err.splitlines()[-1] == f"stopped; it goes on from there with: {again}"
    assert list((out / "plain").glob("checkpoint-*"))
