"""What the healing experiment says of its runs, where that is known."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
from heal import draw, print_table, reaches, read

sys.path.pop(0)


@pytest.mark.parametrize(("level", "tokens"), [(3.0, 100), (2.5, 200), (2.0, 300), (1.5, None), (4.0, 0)])
def test_when_a_curve_reaches_a_level(level: float, tokens: float | None):
    assert reaches([[0, 4.0], [100, 3.0], [300, 2.0]], level) == tokens


def test_a_folder_of_runs_becomes_a_table_a_ledger_and_a_figure(tmp_path, capsys):
    (tmp_path / "teacher.eval.json").write_text(json.dumps({"nll_per_token": 1.0, "tokens": 1234}))
    for name, losses in (("a-healed", [2.0, 1.5]), ("a-anew", [3.0, 2.0])):
        (tmp_path / name).mkdir()
        marks = [{"kind": "valid", "tokens": 1e6 * (i + 1), "nll_per_token": loss} for i, loss in enumerate(losses)]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(mark) + "\n" for mark in marks))
        (tmp_path / name / "foveate.yaml").write_text("lr: 0.004\n")
    (tmp_path / "a-healed.eval.json").write_text(json.dumps({"nll_per_token": 1.6}))
    records = read(tmp_path)
    print_table(records)
    said = capsys.readouterr().out
    assert "| a-healed | `0@1 5@8 1@1` | 0.004 | 2.00M | 1.6000 | +0.6000 | 1.00M, 50% |" in said
    assert "(2.000, unfinished)" in said
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert read(tmp_path / "ledger.jsonl") == records
    draw(records, tmp_path / "f.svg")
    assert "a-healed, 0.004" in (tmp_path / "f.svg").read_text()
