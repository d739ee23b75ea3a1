"""``foveate zoom``: the loss it prints is the loss, less is lost where more is opened, and the plans work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import foveate
from foveate.cli import main
from foveate.data.prompt import encode_text
from foveate.data.tokenizer import make_tokenizer
from foveate.hf.zoom_budget import load_plans

CONTEXT = 1024


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoom")
    torch.manual_seed(1)
    tokenizer = make_tokenizer("bytes", [])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for name in "ab":
        (folder / f"{name}.txt").write_text("".join(f"{name}{n * n} rows. " for n in range(300)))
    return folder


def words(place, *more: str) -> list[str]:
    data = [str(place / "a.txt"), str(place / "b.txt")]
    return ["zoom", str(place / "model"), "--data", *data, "--context", str(CONTEXT), "--passages", "2", *more]


def test_the_curve_is_the_loss_and_the_plans_are_its_point(place, tmp_path, capsys) -> None:
    out = tmp_path / "plans.json"
    assert main(words(place, "--opened", "192", "4", "--within", "0.1", "--json", "--out", str(out))) == 0
    few, most = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    model, tokenizer = foveate.load(place / "model")
    ids = torch.tensor([encode_text(tokenizer, (place / "b.txt").read_text())[:CONTEXT]])
    labels = ids.clone()
    labels[:, : CONTEXT // 2] = -100

    def nats(plans) -> float:
        with torch.no_grad(), foveate.zoom(model, plans):
            return float(model(ids, labels=labels, use_cache=False).loss)

    with torch.no_grad():
        full = float(model(ids, labels=labels).loss)
    plans = load_plans(out)
    assert (most["within"], few["within"]) == (True, False)
    assert nats(plans) == pytest.approx(most["nats"], abs=1e-5)
    assert most["nats"] == pytest.approx(full, abs=1e-3)
    assert few["over_full"] == pytest.approx(torch.tensor(few["nats"] - full).expm1().item(), abs=1e-5)
    assert few["over_full"] > 1e-2
    assert few["keys"] < most["keys"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--opened", "4", "--within", "1e-9"], "no budget keeps perplexity within 1e-09%; try more than --opened 4"),
        (["--opened", "193"], "--opened: 193 must be at most 192"),
        (["--within", "0"], "--within: 0 must be above 0"),
        (["--passages", "1"], "--passages: 1 must be at least 2"),
        (["--context", "700"], "--context: 700 must be at least 772, to have far text"),
        (["--context", "2k", "--data", str(Path(__file__))], "--data: 1 passages of 2,048 tokens"),
        (["--context", "4k"], "--context: 4096 must be from 1 to 2048"),
    ],
)
def test_what_cannot_be_measured_is_one_line(place, capsys, more, said) -> None:
    assert main(words(place, *more)) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"foveate: {said}")
