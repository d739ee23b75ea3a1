"""The check that a person with a GPU runs first runs, at toy size, on a CPU."""

import json
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import gpu_check


@pytest.mark.slow
def test_it_runs_and_says_what_it_found(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--toy", "--json"])
    gpu_check.main()
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    parity = [record for record in records if record["kind"] == "parity"]
    assert [(record["walk"], record["graphs"], record["breaks"]) for record in parity] == [
        ("2@1", 1, 0),
        ("1@1 2@4 1@1", 2, 0),
    ]
    assert all(0 <= record[way] < 1e-4 for record in parity for way in ("whole", "cache", "compiled"))
    names = [job.walk for job in gpu_check.toy_jobs()[1]]
    assert [record["name"] for record in records if record["kind"] == "train"] == names
    assert [record["name"] for record in records if record["kind"] == "decode"] == names
    lines = gpu_check.table(records, "a device").splitlines()
    assert sum(line.startswith("| train | toy | `llama`") and "| 1.00 |" in line for line in lines) == 1


def test_what_differs_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--toy", "--seconds", "60"])
    right = {"kind": "parity", "walk": "2@1", "whole": 0.0, "cache": 0.0, "compiled": 0.0, "graphs": 1, "breaks": 0}
    found = [right | {"not_recorded": 0}, right | {"not_recorded": 0, "whole": 0.5}]
    monkeypatch.setattr(gpu_check, "run", lambda *args: iter([found.pop()]))
    with pytest.raises(SystemExit, match="not as on the CPU"):
        gpu_check.main()


def test_without_a_gpu_it_says_so(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu_check.main()
    assert "there is no CUDA device" in capsys.readouterr().err


def test_the_page_has_a_place_for_the_table() -> None:
    text = gpu_check.PAGE.read_text(encoding="utf-8")
    assert text.index(gpu_check.BEGIN) < text.index(gpu_check.END)


@pytest.mark.slow
def test_what_fails_is_left_out_by_name(capsys) -> None:
    good, bad = (gpu_check.Job(kind="parity", walk=walk, device="cpu") for walk in ("1@1", "1@nonsense"))
    records = list(gpu_check.run([bad, good], time.monotonic() + 300, time.monotonic() + 400, 2))
    assert [record["walk"] for record in records] == ["1@1"]
    assert "parity 1@nonsense 1 x 96: left out: " in capsys.readouterr().err


def test_nothing_begins_when_the_time_is_over(capsys) -> None:
    jobs = [gpu_check.Job(kind="parity", walk=walk, device="cpu") for walk in ("1@1", "2@1")]
    assert list(gpu_check.run(jobs, time.monotonic(), time.monotonic() + 100, 1)) == []
    said = capsys.readouterr().err
    assert "parity 1@1 1 x 96: left out: not compiled in time" in said
    assert "parity 2@1 1 x 96: left out: no time to compile it" in said
