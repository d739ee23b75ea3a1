"""foveate probe shuffle as a user calls it, on a tiny Llama."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from foveate.cli import main
from foveate.data.tokenizer import make_tokenizer

SENTENCE = "the cat sat on a mat and saw how far away the old moon was this night . it said so !"
FEW = ["--context", "64", "--sequences", "8", "--permutations", "2"]
PNG, SVG = b"\x89PNG", b"<svg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``llama``, of 128 positions, and texts: ``many.jsonl`` of six documents, ``one.txt`` of one."""
    folder = tmp_path_factory.mktemp("probe")
    set_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=257, max_position_embeddings=128, initializer_range=0.5, **shape)
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    make_tokenizer("bytes", list).save_pretrained(folder / "llama")
    draw = random.Random(0)
    texts = [" ".join(draw.choices(SENTENCE.split(), k=100)) for _ in range(6)]
    (folder / "many.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "one.txt").write_text("\n# part\n".join(texts))
    (folder / "short.txt").write_text(texts[0][:180])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield folder
    torch.set_num_threads(threads)


def run(folder, *words, data="many.jsonl"):
    return main(["probe", "shuffle", str(folder / "llama"), "--data", str(folder / data), *words])


def test_json_lines_are_all_there_is_on_standard_output(folder, capsys) -> None:
    assert run(folder, *FEW, "--json", "--suggest", "--unit", "token", "block:8") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["kind"] for record in records] == ["curve"] * 5 + ["summary"] * 2 + ["suggestion"] * 2
    assert [(r["condition"], r["unit"]) for r in records[:5]] == [
        ("original", None),
        ("shuffle", "token"),
        ("shuffle", "block:8"),
        ("replace", None),
        ("truncate", None),
    ]
    assert {record["model"] for record in records[:7]} == {str(folder / "llama")}
    assert records[-1]["walk"].startswith("3@1:fovea"), "as many layers as the model has"


def test_a_folder_of_figures_and_numbers_and_the_same_again(folder, capsys, tmp_path) -> None:
    out = tmp_path / "out"
    words = [*FEW, "--boundary", "16", "48", "--out", str(out)]
    assert run(folder, *words) == 0
    printed = capsys.readouterr().out
    assert printed.count("nats more, boundary") == 2
    assert printed.count("order horizon") == 1
    files = {file.name: file.read_bytes() for file in out.iterdir()}
    page = files.pop("index.html").decode()
    assert page.count("<svg") == 2
    assert f"foveate probe shuffle {folder / 'llama'}" in page
    assert "--boundary 16 48" in page
    assert sorted(files) == ["losses.npz", "map.png", "map.svg", "results.jsonl", "shuffle.png", "shuffle.svg"]
    for name in ("shuffle", "map"):
        assert files[f"{name}.png"].startswith(PNG)
        assert files[f"{name}.svg"].startswith(SVG)
    assert len(files["results.jsonl"].splitlines()) == 2 * (4 + 1)
    for name in ("results.jsonl", "map.svg"):
        (out / name).unlink()
    assert run(folder, *words) == 0
    assert {file.name for file in out.iterdir()} == {*files, "index.html"}
    assert (out / "results.jsonl").read_bytes() == files["results.jsonl"]


def test_a_sweep_is_at_every_eighth(folder, capsys) -> None:
    assert run(folder, "--context", "16", "--sequences", "4", "--permutations", "1", "--sweep", "--json") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["boundary"] for r in records if r["kind"] == "summary"] == [2, 4, 6, 8, 10, 12, 14]


def test_one_document_in_parts(folder, capsys) -> None:
    assert run(folder, *FEW, "--sequences", "99", "--split-at", "^# ", "--json", data="one.txt") == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["documents"] == 6


@pytest.mark.parametrize(
    ("words", "data", "line"),
    [
        (
            ["--context", "96"],
            "short.txt",
            "replace takes 48 tokens from another document, and the data is one document",
        ),
        (["--context", "4k"], "many.jsonl", "too short for one sequence of 4,096 tokens"),
        (["--context", "256"], "many.jsonl", "--context: 256 must be from 1 to 128, the model's positions"),
        ([*FEW, "--boundary", "64"], "many.jsonl", "--boundary: 64 must be from 1 to 63"),
        ([*FEW, "--unit", "letter"], "many.jsonl", "--unit: 'letter' is unknown"),
        ([*FEW, "--conditions", "shuffle", "--suggest"], "many.jsonl", "--suggest takes the topic horizon"),
        ([*FEW, "--split-at", "["], "one.txt", "--split-at: '[' is not a regular expression"),
        (FEW, "absent.txt", "there is no such file or folder"),
    ],
)
def test_what_cannot_be_is_one_line(folder, capsys, words, data, line) -> None:
    assert run(folder, *words, data=data) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_model_without_a_tokenizer_is_one_line(folder, capsys, tmp_path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / "llama" / name, tmp_path / name)
    assert main(["probe", "shuffle", str(tmp_path), "--data", str(folder / "many.jsonl"), *FEW]) == 2
    err = capsys.readouterr().err
    assert "the folder holds no tokenizer" in err
    assert err.count("\n") == 1
