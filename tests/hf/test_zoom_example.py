"""The example that asks a document: the second time it reads nothing, and says the same."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import foveate
from foveate.data.tokenizer import make_tokenizer

EXAMPLE = Path(__file__).parents[2] / "examples" / "ask_a_document.py"


@pytest.mark.filterwarnings("ignore")
def test_a_document_is_read_once(tmp_path, monkeypatch, capsys) -> None:
    torch.manual_seed(0)
    tokenizer = make_tokenizer("bytes", [])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "story.txt").write_text("She came in and said nothing. " * 60)
    monkeypatch.setattr(sys, "argv", ["ask", str(tmp_path / "model"), str(tmp_path / "story.txt"), "Who?", "What?"])
    said = []
    for _ in range(2):
        runpy.run_path(str(EXAMPLE))
        said.append(capsys.readouterr().out.split("\n", 1)[1])
        monkeypatch.setattr(foveate.ZoomCache, "save", None)  # what is kept is not written again
    assert said[0] == said[1]
    assert "Who?\n" in said[0]
