"""foveate probe truncate as a user calls it."""

from __future__ import annotations

import json

import pytest

from cli.test_probe_shuffle import folder  # noqa: F401  # the same model and texts
from foveate.cli import main


def run(place, *words) -> int:
    return main(
        ["probe", "truncate", str(place / "llama"), "--data", str(place / "many.jsonl"), "--context", "32", *words]
    )


def test_a_table_lines_of_json_and_figures(folder, capsys, tmp_path) -> None:  # noqa: F811
    out = tmp_path / "out"
    assert run(folder, "--sequences", "9", "--out", str(out), "--tokens", "4") == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[2:8]] == ["0", "1", "2–3", "4–7", "8–15", "16–31"]
    # what all the context leaves is no more than itself: the last row has no difference
    assert [len(line.split()) for line in printed.splitlines()[2:8]] == [5, 5, 5, 5, 5, 2]
    assert "9 sequences of 32 tokens from" in printed
    assert "context horizon: " in printed
    files = {file.name for file in out.iterdir()}
    figures = {f"{name}.{kind}" for name in ("context", "tokens") for kind in ("png", "svg")}
    assert files == {"index.html", "losses.npz", "results.jsonl", *figures}
    assert run(folder, "--sequences", "9", "--out", str(out), "--tokens", "4", "--json") == 0
    lines = capsys.readouterr().out
    assert lines == (out / "results.jsonl").read_text(encoding="utf-8")
    records = [json.loads(line) for line in lines.splitlines()]
    assert records[-1]["kind"] == "token"
    assert {record["model"] for record in records} == {str(folder / "llama")}


@pytest.mark.parametrize(
    ("words", "line"),
    [(["--context", "48"], "48 must be a power of two"), (["--context", "256"], "256 must be from 1 to 128")],
)
def test_what_cannot_be_is_one_line(folder, capsys, words, line) -> None:  # noqa: F811
    assert run(folder, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err.splitlines()[-1]
