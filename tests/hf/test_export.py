"""A folder made by ``foveate export`` is loaded by programs that do not know foveate."""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from foveate import load
from foveate.cli import main
from foveate.errors import FoveateError
from foveate.export import export


@pytest.fixture(scope="module")
def exported(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("published") / "tiny-moon"
    assert main(["export", str(trained_run), "--out", str(out)]) == 0
    return out


def test_the_exported_model_is_the_run(trained_run: Path, exported: Path) -> None:
    ids = torch.tensor([list(b"the cat sat on")])
    with torch.no_grad():
        expected = load(trained_run)[0](ids).logits
        plain = AutoModelForCausalLM.from_pretrained(exported)(ids).logits  # load stores weights in another order
        torch.testing.assert_close(plain, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(load(exported)[0](ids).logits, expected)


LOADS = """
import sys, torch
{before}
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
for _ in range(3):  # loaded, saved and loaded again
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
    sys.argv[1] += "-again"
    model.save_pretrained(sys.argv[1])
assert type(AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)).__name__ == "FoveateModel"
ids = tokenizer("the cat", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=8, do_sample=False)[0]))
"""


UNSAVED = {"README.md", "tokenizer.json", "tokenizer_config.json"}  # by a model alone


def in_a_fresh_interpreter(folder: Path, home: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LOADS.format(before=before), str(folder)],
        capture_output=True, text=True, check=False,
        env={"HF_HOME": str(home), "PATH": "", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
    )  # fmt: skip


@pytest.mark.slow
def test_it_loads_without_importing_foveate(exported: Path, tmp_path: Path) -> None:
    model, tokenizer = load(exported)
    ids = tokenizer("the cat", return_tensors="pt").input_ids
    expected = tokenizer.decode(model.generate(ids, max_new_tokens=8, do_sample=False)[0])
    done = in_a_fresh_interpreter(exported, tmp_path)
    assert done.stdout == expected + "\n", done.stderr
    again = exported.with_name(f"{exported.name}-again-again")
    assert {file.name for file in again.iterdir()} == {file.name for file in exported.iterdir()} - UNSAVED


@pytest.mark.slow
def test_without_foveate_the_message_says_what_to_install(exported: Path, tmp_path: Path) -> None:
    done = in_a_fresh_interpreter(exported, tmp_path, before="sys.modules['foveate'] = None")
    assert done.returncode
    assert "pip install foveate" in done.stderr


def test_the_card_tells_walk_data_score_and_command(exported: Path) -> None:
    _, header, text = (exported / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(header)["pipeline_tag"] == "text-generation"
    assert "foveate" in yaml.safe_load(header)["tags"]
    assert "| walk | `1@1 1@4 1@1` |" in text
    assert "| data | `words.txt` |" in text
    assert "bits per byte" in text
    assert "foveate train --walk '1@1 1@4 1@1' --hidden 32 --heads 2 --data words.txt" in text
    assert str(exported.parent) not in text
    command = re.search("```sh\n(.*)\n```", text)
    assert command
    _, name, *words = shlex.split(command[1])
    parser = argparse.ArgumentParser()
    import_module(f"foveate.cli.{name}").add_arguments(parser)
    assert parser.parse_args(words).walk == "1@1 1@4 1@1"  # it is what the command line takes
    assert json.loads((exported / "config.json").read_text())["auto_map"]["AutoModelForCausalLM"]


def test_saving_a_loaded_export_keeps_it_loadable(exported: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(exported)
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert torch.equal(model.lm_head.weight, again.lm_head.weight)


def test_pipelines_generate_in_batches(exported: Path) -> None:
    generate = pipeline("text-generation", model=str(exported), device="cpu")
    prompts = ["the cat", "so it said — was", "a"]
    together = generate(prompts, batch_size=3, max_new_tokens=8, do_sample=False)
    for prompt, (answer,) in zip(prompts, together, strict=True):
        assert answer == generate(prompt, max_new_tokens=8, do_sample=False)[0]


def test_half_precision(trained_run: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(export(trained_run, tmp_path / "half", dtype="bf16"), dtype="auto")
    assert model.dtype == torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "half")
    assert model.generate(**tokenizer(["the", "a cat sat"], padding=True, return_tensors="pt"), max_new_tokens=4).dim()


def test_the_example_of_three_questions(exported: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    document = tmp_path / "document.txt"
    document.write_text("the cat sat on a mat " * 3, encoding="utf-8")
    example = Path(__file__).parents[2] / "examples" / "three_questions.py"
    monkeypatch.setattr(sys, "argv", [str(example), str(exported), str(document), "who?", "where?", "why?"])
    runpy.run_path(str(example))
    printed = capsys.readouterr().out
    assert printed.startswith("64 tokens read into")
    assert all(f"\n{question}\n" in printed for question in ("who?", "where?", "why?"))


def test_refusals(trained_run: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(trained_run), "--out", str(exported)]) == 2
    assert "exists; choose a new folder" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "nothing"), "--out", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=257, **shape)).save_pretrained(tmp_path / "llama")
    AutoTokenizer.from_pretrained(exported).save_pretrained(tmp_path / "llama")
    with pytest.raises(FoveateError, match="holds a llama"):
        export(tmp_path / "llama", tmp_path / "new")
