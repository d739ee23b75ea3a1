"""Training on a stream: the same run however often it is stopped, and however many processes share it."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from foveate.data.stream import BlockStream, TextStream
from foveate.errors import FoveateError
from foveate.loading import load
from foveate.train.metrics import read_metrics
from foveate.train.run import open_validation, resume, train
from foveate.train.settings import TrainSettings
from foveate.train.streaming import StreamLoader, first_texts, held_out_documents, text_stream
from train.test_distributed import assert_same, run_on, world
from train.test_run import Killed, assert_same_run, kill_at


@pytest.fixture
def streamed(settings, tmp_path, monkeypatch) -> TrainSettings:
    monkeypatch.setattr("foveate.data.stream.WINDOW_TOKENS", 4096)
    lines = [json.dumps({"text": f"{number} cats sat on {number % 13} mats " * 9}) for number in range(80)]
    for part in range(4):
        (tmp_path / f"part-{part}.jsonl").write_text("\n".join(lines[part * 20 :][:20]))
    return replace(settings, data=(str(tmp_path / "*.jsonl"),), stream=True, valid_fraction=0.2)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_bit(streamed, tmp_path, capsys) -> None:
    undisturbed = train(replace(streamed, out=str(tmp_path / "undisturbed")))
    for step, when in [(4, "train"), (8, "train"), (10, "valid"), (12, "train")]:
        with pytest.raises(Killed):
            if step == 4:
                train(streamed, on_record=kill_at(step, when))
            else:
                resume(streamed.out, on_record=kill_at(step, when))
    assert_same_run(resume(streamed.out), undisturbed)
    steps = undisturbed.steps
    again = resume(streamed.out)
    assert (again.step, again.finished) == (steps, True)
    assert undisturbed.train["loss"] < 4.5


@pytest.mark.slow
def test_processes_share_a_stream(streamed, tmp_path, monkeypatch) -> None:
    monkeypatch.undo()  # the processes know nothing of it
    alone = train(replace(streamed, out=str(tmp_path / "alone")))
    assert_same(alone.path, run_on(2, replace(streamed, parallel="fsdp")))


@pytest.mark.parametrize(("size", "parts"), [(1, 1), (2, 1), (3, 2)])
def test_the_shares_are_the_batch(streamed, tokenizer, size, parts) -> None:
    settings = replace(streamed, batch=12, accumulate=parts)
    stream = BlockStream(text_stream(settings), tokenizer, context=32, window_tokens=512)
    loaders = [StreamLoader(stream, settings, world(rank, size)) for rank in range(size)]
    drawn = [list(islice(loader, 5 * parts)) for loader in loaders]
    batches = list(islice(stream.batches(12), 5))
    for step, (ids_BT, _) in enumerate(batches):
        pieces = [drawn[rank][step * parts + part]["input_ids"] for part in range(parts) for rank in range(size)]
        assert torch.equal(torch.cat(pieces), torch.from_numpy(ids_BT))
    assert all(loader.position == batches[-1][1] for loader in loaders)


def test_what_is_held_out_is_validated_on(streamed, tokenizer) -> None:
    stream = text_stream(streamed)
    documents = held_out_documents(stream, tokenizer, 1000)
    assert sum(len(document.ids) for document in documents) == 1000
    everything = held_out_documents(stream, tokenizer, 10**9)
    assert [tokenizer.decode(document.ids) for document in everything] == list(stream.held_out_texts())
    assert not set(stream.held_out_texts()) & set(first_texts(stream, 10**9))
    own = TextStream(streamed.data, valid_fraction=0.0)
    assert text_stream(replace(streamed, valid_data=("books",))).held_out_below == own.held_out_below == 0
    with pytest.raises(FoveateError, match=r"no document of --data is held out: .* --valid-data"):
        held_out_documents(own, tokenizer, 10)


def test_a_tokenizer_learns_from_the_first_pass(streamed) -> None:
    result = train(replace(streamed, tokenizer="bpe:300", tokens=128))
    _, tokenizer = load(result.path, device="cpu")
    assert len(tokenizer) > 257


def test_other_files_are_refused(streamed) -> None:
    with pytest.raises(Killed):
        train(streamed, on_record=kill_at(6, "train"))
    part = Path(streamed.data[0]).parent / "part-1.jsonl"
    part.write_text(part.read_text() + '\n{"text": "more"}')
    with pytest.raises(FoveateError, match=r"the data of .* is not what it was when the run began"):
        resume(streamed.out)


def test_there_is_no_corpus_to_validate_on(streamed, tokenizer) -> None:
    with pytest.raises(FoveateError, match=r"name some with --data"):
        open_validation(streamed, tokenizer)


def test_a_fault_names_the_text(streamed, monkeypatch) -> None:
    with pytest.raises(FoveateError, match=r"sequences of .*part-\d.jsonl from document \d+ token \d+ on, pass 1"):
        train(replace(streamed, lr=1.0, warmup=0, tokens=10**5))
    assert read_metrics(Path(streamed.out))
