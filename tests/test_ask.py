"""``foveate ask``: what it says is what the zoomed model writes after document and question, read now or long ago."""

from __future__ import annotations

import io
import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import foveate
from foveate.cli import main
from foveate.data.decode import decode_text
from foveate.data.tokenizer import make_tokenizer
from foveate.hf.zoom_budget import save_plans

STORY = "She came in and said nothing. The lamp was lit, and <|endoftext|> stood on the wall. " * 12
PLANS = [foveate.ZoomPlan(near=16, block=64, groups=(16, 4), keep=(None, 8), opened=8, thumbnails=4)] * 2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, a story, and plans by which most of the story is far."""
    folder = tmp_path_factory.mktemp("ask")
    torch.manual_seed(1)
    tokenizer = make_tokenizer("bytes", [])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1200,
        initializer_range=0.3,  # so that the answer is not one letter over and over
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder / "model")
    (folder / "story.txt").write_text(STORY)
    save_plans(folder / "plans.json", PLANS)
    return folder


def ask(place, *words, capsys) -> list[dict]:
    settings = ["--plans", str(place / "plans.json"), "--tokens", "12", "--json"]
    assert main(["ask", str(place / "model"), str(place / "story.txt"), *words, *settings]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_an_answer_is_what_the_zoomed_model_writes(place, capsys) -> None:
    told = ask(place, "Who?", "What?", capsys=capsys)
    model, tokenizer = foveate.load(place / "model")
    for question, line in zip(("Who?", "What?"), told, strict=True):
        text = f"{STORY}\n\nQuestion: {question}\nAnswer:".encode()
        ids = torch.tensor([[tokenizer.eos_token_id, *text]])
        with foveate.zoom(model, PLANS):
            new = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        alone = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        said = decode_text(tokenizer, new.tolist()).strip()
        assert line == {"question": question, "answer": said}
        assert not torch.equal(new, alone)  # it did not read everything


def test_what_is_kept_is_not_read_again_and_is_of_one_document(place, capsys, monkeypatch, tmp_path) -> None:
    kept = ["--keep", str(tmp_path / "story.zoom")]
    first = ask(place, "Who?", *kept, capsys=capsys)
    monkeypatch.setattr("foveate.ask.Reader.read", None)
    monkeypatch.setattr("sys.stdin", io.StringIO("\nWho?\n"))
    assert ask(place, *kept, capsys=capsys) == first
    (tmp_path / "other.txt").write_text(STORY + "He left.")
    words = [str(tmp_path / "other.txt"), "Who?", *kept, "--plans", str(place / "plans.json")]
    assert main(["ask", str(place / "model"), *words]) == 2
    assert capsys.readouterr().err.endswith("story.zoom was read from another text; remove it, or name another file\n")
    assert main(["ask", str(place / "model"), *words[:-2]]) == 2
    assert "was read with other settings" in capsys.readouterr().err


def test_a_chat_template_puts_document_and_question_into_one_turn(place, capsys, tmp_path) -> None:
    model, tokenizer = foveate.load(place / "model")
    tokenizer.chat_template = "{% for m in messages %}<u>{{ m.content }}</u>{% endfor %}<|endoftext|>"
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "story.txt").write_text(STORY)
    save_plans(tmp_path / "plans.json", PLANS)
    (line,) = ask(tmp_path, "Who?", capsys=capsys)
    ids = torch.tensor([[*f"<u>{STORY}\n\nWho?</u>".encode(), tokenizer.eos_token_id]])
    with foveate.zoom(model, PLANS):
        new = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :].tolist()
    assert line["answer"] == decode_text(tokenizer, new).strip()


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        (None, [], "cannot read {file}: No such file"),
        (b"\xff\xfe", [], "{file} is not UTF-8 text"),
        (b" \n", [], "the document is empty"),
        (b"x" * 1300, [], "the document: 1,301 tokens, more than the model's 1,200 positions"),
        (
            b"x" * 1100,
            ["--tokens", "90"],
            "question and the answer: 1,215 tokens, more than the model's 1,200 positions",
        ),
        (b"x", ["--opened", "0"], "argument --opened"),
        (b"x", ["--plans", "none.json"], "none.json does not exist"),
    ],
)
def test_what_cannot_be_asked_is_one_line(place, tmp_path, capsys, text, words, said) -> None:
    file = tmp_path / "text.txt"
    if text is not None:
        file.write_bytes(text)
    assert main(["ask", str(place / "model"), str(file), "Who?", *words]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("foveate: ")
    assert said.format(file=file) in line


def test_a_foveate_run_is_refused(tmp_path, capsys) -> None:
    tokenizer = make_tokenizer("bytes", [])
    foveate.FoveateForCausalLM(
        foveate.FoveateConfig(walk="2@1", vocab_size=len(tokenizer), hidden_size=32, num_attention_heads=2)
    ).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "story.txt").write_text("x")
    assert main(["ask", str(tmp_path / "model"), str(tmp_path / "story.txt"), "Who?"]) == 2
    assert "a Foveate model reads far text as its walk says" in capsys.readouterr().err
