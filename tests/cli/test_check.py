"""foveate check as a user calls it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from foveate.cli import main
from promises.faults import FAULTS, llama, planted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "llama"
    llama().save_pretrained(place)
    return place


def test_a_table_and_a_page(folder: Path, capsys, tmp_path) -> None:
    out = tmp_path / "out"
    assert main(["check", str(folder), "--only", "causal", "cached", "--length", "6", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines() if "✓ kept" in line] == ["causal", "cached"]
    assert f"{folder}: all 2 promises kept." in printed
    assert {file.name for file in out.iterdir()} == {"index.html", "results.jsonl"}
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "replacing later tokens leaves all earlier logits as they are" in page
    assert f"foveate check {folder} --only causal cached --length 6" in page
    HTMLParser().feed(page)


def test_a_broken_promise_is_exit_code_1_and_a_record(capsys, monkeypatch) -> None:
    fault = next(fault for fault in FAULTS if fault.what == "sees the next token")
    monkeypatch.setattr("foveate.promises.architectures.tiny_model", lambda *args, **how: planted(fault))
    assert main(["check", "--architecture", "llama", "--only", "causal", "--json"]) == 1
    about, finding = map(json.loads, capsys.readouterr().out.splitlines())
    assert (about["kept"], about["broken"]) == (0, 1)
    assert (finding["name"], finding["state"], finding["layer"]) == ("causal", "broken", fault.layer)
    assert finding["worst"] > finding["allowed"] > 0


def test_several_models_are_a_matrix(capsys) -> None:
    assert main(["check", "--architecture", "llama", "gpt2", "--only", "causal", "--length", "6"]) == 0
    printed = capsys.readouterr().out
    assert "gpt2: all 1 promises kept." in printed and "1 causal" in printed


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "there is no model to check; name one, or --architecture NAME"),
        (["nowhere"], "there is no model at nowhere: no such directory"),
        (["--architecture", "qwen9"], "no causal language model of the architecture 'qwen9'; did you mean qwen3?"),
    ],
)
def test_bad_input_is_one_line(capsys, words, line) -> None:
    assert main(["check", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and line in err and len(err.splitlines()) == 1


def test_folders_that_hold_no_model_are_one_line(folder: Path, capsys, tmp_path) -> None:
    from transformers import BertConfig, BertModel

    encoder, bare = tmp_path / "encoder", tmp_path / "bare"
    shape = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertModel(BertConfig(**shape, intermediate_size=8)).save_pretrained(encoder)
    bare.mkdir()
    (bare / "config.json").write_text((folder / "config.json").read_text())
    capsys.readouterr()
    for place, line in ((encoder, "holds a BertModel, which is not a causal"), (bare, "model.safetensors is missing")):
        assert main(["check", str(place)]) == 2
        err = capsys.readouterr().err
        assert line in err and len(err.splitlines()) == 1
