"""foveate probe rare as a user calls it, on two tiny models with different tokenizers."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from foveate.cli import main
from probes.word_models import llama_reader, tokenizers

TEXT = "The cat sat — so it said — on a mat, and saw the far away moon. "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rare")
    known = tokenizers()
    for seed, name in enumerate(("bytes", "llama")):
        reader = llama_reader(name, known[name], seed=seed)
        reader.model.save_pretrained(folder / name)
        reader.tokenizer.save_pretrained(folder / name)
    reader.model.save_pretrained(folder / "bare")
    (folder / "train.txt").write_text("The cat sat. " * 20, encoding="utf-8")
    (folder / "data.txt").write_text(TEXT * 20, encoding="utf-8")
    (folder / "signs.txt").write_text("… — !", encoding="utf-8")
    return folder


def run(folder, *options, models=("bytes", "llama"), train="train.txt", data="data.txt") -> int:
    given = [str(folder / model) for model in models]
    return main(["probe", "rare", *given, "--train", str(folder / train), "--data", str(folder / data), *options])


def test_lines_of_json_and_figures(folder, tmp_path, capsys) -> None:
    assert run(folder, "--json", "--out", str(tmp_path / "out"), "--buckets", "1", "20", "--dtype", "fp32") == 0
    out = capsys.readouterr().out
    first, *others = map(json.loads, out.splitlines())
    assert {key: first[key] for key in ("kind", "a", "b", "context", "dtype", "text_bytes", "train_words")} == {
        "kind": "rare_words",
        "a": "bytes",
        "b": "llama",
        "context": 64,
        "dtype": "fp32",
        "text_bytes": len((TEXT * 20).encode()),
        "train_words": 60,
    }
    assert [b["low"] for b in first["buckets"]] == [0, 1, 20]
    assert {record["kind"] for record in others} == {"cell", "gain"}
    assert (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8") == out
    for name in ("rare-words", "rare-words-distance"):
        svg = ET.parse(tmp_path / "out" / f"{name}.svg")
        words = "".join(svg.getroot().itertext())
        assert "20+" in words
        assert "llama better" in words
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_for_people(folder, capsys) -> None:
    assert run(folder, "--bytes", "1k", "--top", "1", "--dtype", "fp32") == 0
    out = capsys.readouterr().out
    assert "times in training" in out
    assert "not in context" in out
    assert "10–99" in out
    assert "Differences are bytes less llama: above 0, llama is better." in out
    assert "of 1,000 bytes, context 64." in out
    assert "llama better: " in out or "bytes better: " in out


@pytest.mark.parametrize(
    ("options", "given", "line"),
    [
        ([], {"models": ("bytes", "bytes")}, "bytes is named twice; name each model once"),
        ([], {"models": ("bytes", "nowhere")}, "there is no model at"),
        ([], {"models": ("bytes", "bare")}, "the folder holds no tokenizer"),
        ([], {"data": "nothing.txt"}, "there is no such file or folder"),
        ([], {"train": "nothing.txt"}, "there is no such file or folder"),
        ([], {"data": "signs.txt"}, "there are no words to score"),
        ([], {"train": "signs.txt"}, "there are no words in the training text"),
        (["--context", "128"], {}, "--context: 128 is more than the 64 positions of bytes"),
        (["--buckets", "10", "5"], {}, "--buckets: 10 5 must be rising numbers from 1"),
        (["--dtype", "fp3"], {}, "dtype 'fp3' is unknown"),
        (["--top", "x"], {}, "'x' is not a number"),
    ],
)
def test_mistakes_are_one_line(folder, options, given, line, capsys) -> None:
    assert run(folder, *options, **given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("foveate: ")


def test_a_file_in_the_place_of_the_folder_is_told_first(folder, tmp_path, capsys) -> None:
    (tmp_path / "out").write_text("")
    assert run(folder, "--out", str(tmp_path / "out")) == 2
    assert capsys.readouterr().err.startswith("foveate: --out: ")
