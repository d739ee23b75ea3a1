"""Documents drawn from a model: theirs is its distribution, and an interrupted file is gone on with."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from foveate.cli import main
from foveate.errors import FoveateError
from foveate.loading import load
from foveate.train.run import train
from foveate.train.write import write_documents

GIVEN = {"name": "it", "tokens": 400, "length": 31, "batch": 4, "seed": 3}


@pytest.fixture(scope="module")
def writer(undisturbed):
    return load(undisturbed.path, device="cpu")


def test_an_interrupted_file_is_gone_on_with(writer, tmp_path) -> None:
    whole, other = tmp_path / "whole.jsonl", tmp_path / "other.jsonl"
    assert write_documents(*writer, whole, **GIVEN) >= 400
    write_documents(*writer, other, **GIVEN | {"tokens": 200})
    part = other.read_bytes()
    assert whole.read_bytes().startswith(part)
    other.write_bytes(part[:-40])
    write_documents(*writer, other, **GIVEN)
    assert other.read_bytes() == whole.read_bytes()
    lines = [json.loads(line) for line in whole.read_text().splitlines()]
    assert {(line["seed"], line["model"], line["length"]) for line in lines} == {(3, "it", 31)}
    assert len({line["text"] for line in lines}) > len(lines) // 2
    write_documents(*writer, tmp_path / "seed.jsonl", **GIVEN | {"seed": 4})
    assert (tmp_path / "seed.jsonl").read_text() != whole.read_text()


def test_at_a_temperature_near_zero_it_is_what_the_model_finds_likeliest(
    llama, tokenizer, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("foveate.train.write.decode_text", lambda tokenizer, ids, before: " ".join(map(str, ids)))
    out = tmp_path / "cold.jsonl"
    write_documents(llama, tokenizer, out, **GIVEN | {"tokens": 1, "temperature": 1e-4, "length": 8})
    texts = {json.loads(line)["text"] for line in out.read_text().splitlines()}
    assert len(texts) > 1, "after the mark, whose embedding is zero, this model finds all tokens as likely"
    for text in texts:
        ids = [int(word) for word in text.split()]
        with torch.no_grad():
            likeliest = llama(torch.tensor([[tokenizer.eos_token_id, *ids]])).logits[0].argmax(-1).tolist()
        assert ids[1:] == likeliest[1:-1]
        assert len(ids) == 8


def test_it_is_data_to_train_on(undisturbed, settings, tmp_path, capsys) -> None:
    out = tmp_path / "samples.jsonl"
    words = ["write", str(undisturbed.path), "--out", str(out), "--tokens", "1k", "--length", "31", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tokens"] >= 1000
    assert told["documents"] == 32 * (told["documents"] // 32)
    assert train(replace(settings, data=(str(out),), valid_fraction=0.0, tokens=256)).finished


def test_a_file_of_something_else_is_refused(writer, tmp_path) -> None:
    other = tmp_path / "other.jsonl"
    begins_alike = json.dumps({"model": "it", "seed": 3})
    for content in ('{"text": "mine"}\n' * 4, '{"text": "mine"}\n', '{"text": "mine"}', "notes\n", begins_alike):
        other.write_text(content)
        with pytest.raises(FoveateError, match="holds something else; choose a new file"):
            write_documents(*writer, other, **GIVEN)
        assert other.read_text() == content
    write_documents(*writer, tmp_path / "mine.jsonl", **GIVEN | {"tokens": 1})
    with pytest.raises(FoveateError, match="holds something else"):
        write_documents(*writer, tmp_path / "mine.jsonl", **GIVEN | {"seed": 9})
    with pytest.raises(FoveateError, match="--temperature: 0 must be above 0"):
        write_documents(*writer, tmp_path / "new.jsonl", **GIVEN | {"temperature": 0.0})
    with pytest.raises(FoveateError, match="--length: 32 and the mark are more than the 32 positions"):
        write_documents(*writer, tmp_path / "new.jsonl", **GIVEN | {"length": 32})
    with pytest.raises(FoveateError, match=r"cannot write .*: No such file"):
        write_documents(*writer, tmp_path / "nowhere" / "new.jsonl", **GIVEN)
