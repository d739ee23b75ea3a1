"""Whether leads last: what is compared with what, what the pages say, and where losses are."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
LEDGERS = [EXPERIMENTS / "ledgers" / f"{name}.jsonl" for name in ("long_rates", "long_muon")]


@pytest.fixture(scope="module")
def programs() -> Iterator[SimpleNamespace]:
    sys.path.insert(0, str(EXPERIMENTS))
    import lead
    import leaderboard
    import long_losses
    import scale

    yield SimpleNamespace(lead=lead, leaderboard=leaderboard, losses=long_losses, scale=scale)
    sys.path.remove(str(EXPERIMENTS))


def record(model: str, walk: str, bpb: list[float], **other) -> dict:
    curve = [{"tokens": 1_000_000 * 2**i, "bpb": value, "seconds": i} for i, value in enumerate(bpb)]
    alike = {"group": "g", "optimizer": "adamw", "lr": 0.004, "seed": 0, "context": 512}
    return {**alike, "model": model, "walk": walk, "curve": curve, **other}


def test_a_lead_is_over_the_plain_twin_that_learned_alike(programs) -> None:
    plain, faster = record("plain", "14@1", [3.0, 2.5, 2.0]), record("plain@x", "14@1", [2.0, 1.5, 1.0], lr=0.008)
    odd = record("plain-branches", "14@1", [1.0, 1.0, 1.0])
    deep, alone = (
        record("deep", "1@1 2@4 1@1", [2.9, 2.45, 2.0]),
        record("muon", "1@1 2@4 1@1", [1.0], optimizer="muon"),
    )
    assert programs.lead.pairs([odd, plain, faster, deep, alone]) == [(plain, deep)]
    leads = programs.lead.lead(plain, deep)
    assert leads == pytest.approx({1_000_000: 0.1, 2_000_000: 0.05, 4_000_000: 0.0})
    assert programs.lead.slope({500_000: 9.0, **leads}) == pytest.approx(-0.05)  # what is early does not count


def test_the_pages_are_what_the_commands_print(programs, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(sys, "argv", ["leaderboard.py", str(EXPERIMENTS / "leaderboard.yaml")])
    programs.leaderboard.main()
    assert capsys.readouterr().out == (ROOT / "docs/leaderboard.md").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["lead.py", *map(str, LEDGERS), "--out", str(tmp_path)])
    programs.lead.main()
    table = capsys.readouterr().out.strip().replace("-0.", "−0.")
    assert table in (ROOT / "docs/lasting.md").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["scale.py", str(EXPERIMENTS / "ledgers/long_steps.jsonl")])
    programs.scale.main()
    assert capsys.readouterr().out.strip() in (ROOT / "docs/lasting.md").read_text(encoding="utf-8")
    assert (tmp_path / "lead.svg").read_text().startswith("<svg")


def test_every_number_of_the_rates_is_in_the_ledger() -> None:
    page = (ROOT / "docs/lasting.md").read_text(encoding="utf-8")
    records = [json.loads(line) for ledger in LEDGERS for line in ledger.read_text().splitlines()]
    assert len(records) == 13
    for found in records:
        assert found["finished"]
        assert found["group"] == "10M" or f"{found['bpb']:.4f}" in page


def test_a_model_within_what_a_seed_moves_is_marked_as_a_tie(programs, tmp_path) -> None:
    lines = [
        {"model": name, "walk": "2@1", "bpb": bpb, "lr": 0.01, "optimizer": "adamw", "seconds": 3, "commit": "abc"}
        for name, bpb in (("best", 2.0), ("near", 2.019), ("far", 2.021))
    ]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plan = {"train": {"hidden": 32, "heads": 2}, "models": {line["model"]: {"walk": "2@1"} for line in lines}}
    (tmp_path / "p.yaml").write_text(json.dumps(plan))
    rows, _ = programs.leaderboard.rows({"ledger": "l.jsonl", "plan": "p.yaml"}, tmp_path)
    assert [row[4] for row in rows] == ["2.0000 ≈", "2.0190 ≈", "2.0210"]
    assert [row[5] for row in rows] == ["+0.0000", "+0.0190", "+0.0210"]


def test_differences_of_losses_are_means_over_the_tokens_of_a_bin(programs, monkeypatch) -> None:
    monkeypatch.setattr(programs.losses, "SCORED_EACH", 4)
    bin_NT = np.array([[0, 0, 1, 1], [0, 1, 1, 1]])
    scored_NT = np.array([[True, False, True, True], [True, True, True, True]])
    first_NT = np.full((2, 4), 2.0)
    less_NT = np.array([[0.5, 9.0, 0.2, 0.2], [0.5, 0.2, 0.2, 0.2]])
    few, many = programs.losses.rows(bin_NT, scored_NT, first_NT, less_NT, 2)
    assert few == "2 | 2.000 | +0.500 [+0.500, +0.500] |"  # the token that is not scored does not count
    assert many == "5 | 2.000 | +0.200 [+0.200, +0.200] |"


def test_a_fit_finds_the_times_that_steps_were_made_of(programs) -> None:
    steps = []
    for walk in ("14@1", "7@1", "1@1 4@4 19@16 4@4 2@1", "3@1 8@4 3@1"):
        layers, runs, tflops = programs.scale.work(programs.scale.costs(walk, 512))
        steps.append({"walk": walk, "group": "10M", "graph_ms": 0.2 * layers + 0.5 * runs + 3 * tflops})
    found, fitted = programs.scale.fit(steps)
    assert found == pytest.approx([0.2, 0.5, 3])
    assert fitted == pytest.approx([step["graph_ms"] for step in steps])
