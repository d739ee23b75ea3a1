"""foveate compare as a user calls it, on two tiny runs and a Llama."""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from foveate.cli import main
from foveate.cli.compare import _command, add_arguments
from foveate.data.tokenizer import make_tokenizer
from foveate.report.results import Results
from foveate.report.units import quantity
from foveate.train.run import train
from foveate.train.settings import TrainSettings

SENTENCE = "the cat sat on a mat and saw how far away the naïve old moon — so it said — was this night"
FEW = ["--batch", "2", "--decode-tokens", "2", "--repeats", "2", "--decode-context", "16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text, runs ``plain`` and ``coarse`` trained on it, a run ``other`` that held out more, and ``llama``."""
    folder = tmp_path_factory.mktemp("compare")
    draw = random.Random(0)
    (folder / "text.txt").write_text(" ".join(draw.choice(SENTENCE.split()) for _ in range(3000)), encoding="utf-8")
    shared = {
        "hidden": 32,
        "heads": 2,
        "data": (str(folder / "text.txt"),),
        "valid_fraction": 0.05,
        "tokenizer": "bytes",
        "context": 32,
        "batch": 4,
        "tokens": 8 * 4 * 32,
        "dtype": "fp32",
        "device": "cpu",
        "eval_tokens": 256,
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(folder / "cache"))
        for name, own in (
            ("plain", {"walk": "1@1"}),
            ("coarse", {"walk": "1@1 1@4 1@1"}),
            ("other", {"walk": "1@1", "valid_fraction": 0.1}),
        ):
            train(TrainSettings(**shared | own, out=str(folder / name)))
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
        LlamaForCausalLM(LlamaConfig(vocab_size=257, max_position_embeddings=64, **shape)).save_pretrained(
            folder / "llama"
        )
        make_tokenizer("bytes", list).save_pretrained(folder / "llama")
        yield folder
    torch.set_num_threads(threads)


def test_a_single_run_shows_how_it_learnt(folder, capsys) -> None:
    assert main(["compare", str(folder / "plain"), *FEW]) == 0
    output = capsys.readouterr().out
    records = [json.loads(line) for line in (folder / "plain" / "metrics.jsonl").read_text().splitlines()]
    valid = [record for record in records if record["kind"] == "valid"]
    listed = re.findall(r"^(\S+) tokens +\d+ s +(\S+)$", output.partition("plain: trained on")[2], re.MULTILINE)
    assert listed == [(quantity(record["tokens"]), f"{record['bpb']:.4f}") for record in valid]


def test_two_runs_on_what_they_held_out(folder, tmp_path, capsys) -> None:
    runs = [str(folder / "plain"), str(folder / "coarse")]
    assert (
        main(["compare", *runs, *FEW, "--out", str(tmp_path / "report"), "--prompt", "the cat", "--tokens", "5"]) == 0
    )
    output = capsys.readouterr()
    assert output.out.startswith("plain:\nthe cat")
    assert "less those of plain" in output.out
    assert f"report: {tmp_path / 'report' / 'index.html'}" in output.out
    assert "plain: scoring" in output.err
    results = Results.parse((tmp_path / "report" / "results.jsonl").read_text())
    assert results.names == ["plain", "coarse"]

    assert main(["eval", runs[1], "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert results.one("quality", "coarse")["bpb"] == pytest.approx(evaluated["bpb"], rel=1e-6)

    memory = results.one("training_memory", "coarse")
    assert (memory["batch"], memory["context"], memory["dtype"]) == (2, 32, "float32")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "coarse against plain" in page
    assert f"foveate train --walk &#x27;1@1 1@4 1@1&#x27; --hidden 32 --heads 2 --data {folder / 'text.txt'}" in page


def test_json_is_all_there_is_on_standard_output(folder, capsys) -> None:
    models = [str(folder / name) for name in ("coarse", "llama")]
    data = ["--data", str(folder / "text.txt"), "--bytes", "500"]
    assert main(["compare", *models, *data, *FEW, "--json", "--prompt", "the", "--tokens", "2"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [record["kind"] for record in records]
    assert kinds[:3] == ["sample", "sample", "setup"]
    assert kinds.count("curve") == 1, "the Llama has no log"
    setup = next(record for record in records if record["kind"] == "setup")
    assert setup["text_bytes"] in range(497, 501)
    assert setup["context"] == 32
    llama = next(record for record in records if record["kind"] == "model" and record["name"] == "llama")
    assert (llama["walk"], llama["layers"], llama["settings"]) == (None, 1, None)
    (difference,) = [record for record in records if record["kind"] == "difference"]
    assert difference["low"] < difference["bpb"] < difference["high"]
    assert (difference["name"], difference["against"], difference["unit"]) == ("llama", "coarse", "window")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("plain other", "--data is missing: the models did not all hold out the same text"),
        ("plain llama", "--data is missing: the models did not all hold out the same text"),
        ("plain nowhere", "there is no model at"),
        ("plain coarse --context 64", "--context: 64 must be from 1 to 32"),
        ("plain coarse --data nowhere.txt", "nowhere.txt"),
        ("plain coarse --out text.txt", "text.txt cannot be used as a folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(words, line, folder, capsys) -> None:
    names = [str(folder / word) if (folder / word).exists() or word == "nowhere" else word for word in words.split()]
    assert main(["compare", *names]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert line in output.err.splitlines()[-1]


def test_the_command_line_is_told_again() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = [
        "a",
        "b",
        "--data",
        "x y.txt",
        "z.txt",
        "--decode-context",
        "512",
        "--decode-context",
        "1024",
        "--seed",
        "3",
    ]
    args = parser.parse_args([*words, "--out", "report", "--json"])
    told = _command(args)
    assert told == (
        "foveate compare a b --out report --data 'x y.txt' z.txt --decode-context 512 --decode-context 1024 --seed 3"
    )


def test_weights_are_as_they_were(folder) -> None:
    file = Path(folder / "plain" / "model.safetensors")
    before = file.read_bytes()
    assert main(["compare", str(folder / "plain"), str(folder / "coarse"), *FEW, "--json"]) == 0
    assert file.read_bytes() == before
