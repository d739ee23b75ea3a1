"""A stream of text: the whole of it in order, cut and shuffled, from any position on, always the same."""

from __future__ import annotations

import gzip
import json
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import pytest
import zstandard

from foveate.data.reading import Reading
from foveate.data.stream import BlockStream, Position, TextStream, ahead, take_characters
from foveate.data.tokenizer import make_tokenizer
from foveate.errors import FoveateError

CONTEXT, WINDOW = 8, 40
TEXTS = [f"document {number} " + "naïve — text " * (number % 7) for number in range(30)]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Thirty documents in five files of all kinds."""
    lines = [json.dumps({"text": text}).encode() + b"\n" for text in TEXTS]
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines[:10]))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(b"".join(lines[10:20])))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[20:28])))
    (tmp_path / "d.txt").write_text(TEXTS[28], encoding="utf-8")
    (tmp_path / "e.txt").write_text(TEXTS[29], encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer("bytes", list)


def blocks_of(folder: Path, tokenizer, **options) -> BlockStream:
    return BlockStream(TextStream([str(folder)], **options), tokenizer, context=CONTEXT, window_tokens=WINDOW)


def first_pass(stream: TextStream) -> list[str]:
    return [text for _, text in takewhile(lambda item: item[0].turn == 0, stream.training_texts())]


def test_every_pass_has_every_document_once(folder) -> None:
    stream = TextStream([str(folder)], seed=1)
    read = list(islice(stream.training_texts(), 3 * len(TEXTS)))
    passes = [[text for position, text in read if position.turn == turn] for turn in range(3)]
    assert all(sorted(texts) == sorted(TEXTS) for texts in passes)
    assert passes[0] != passes[1], "every pass takes the files in another order"


def test_goes_on_from_any_document(folder) -> None:
    stream = TextStream([str(folder)], seed=1)
    read = list(islice(stream.training_texts(), 70))
    for number in range(0, 65, 3):
        start = Position(**json.loads(json.dumps(read[number][0].to_json())))
        assert list(islice(stream.training_texts(start), 5)) == read[number : number + 5]


def test_the_blocks_are_the_text_without_overlap_or_loss(folder, tokenizer) -> None:
    stream = blocks_of(folder, tokenizer, seed=2)
    expected: list[int] = []
    for _, text in islice(stream.texts.training_texts(), 99):
        expected += [*text.encode(), tokenizer.eos_token_id]
    tokens: list[int] = []
    shuffled = False
    for number, window in enumerate(islice(stream.windows(), 110)):
        order = np.random.default_rng([2, number]).permutation(len(window.blocks))
        in_order = np.empty_like(window.blocks)
        in_order[order] = window.blocks
        shuffled = shuffled or not np.array_equal(in_order, window.blocks)
        for block in in_order:
            assert not tokens or block[0] == tokens[-1]
            tokens += block.tolist()[1 if tokens else 0 :]
    assert len(tokens) > 2 * sum(len(text.encode()) + 1 for text in TEXTS), "two passes, at least"
    assert tokens == expected[: len(tokens)]
    assert shuffled


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_goes_on_from_any_batch(folder, tokenizer, batch) -> None:
    stream = blocks_of(folder, tokenizer, seed=3)
    batches = list(islice(stream.batches(batch), 40))
    for number in (0, 13, 31):
        start = Position(**json.loads(json.dumps(batches[number][1].to_json())))
        again = list(islice(blocks_of(folder, tokenizer, seed=3).batches(batch, start), 3))
        for (ids, position), (same_ids, same_position) in zip(batches[number + 1 :], again, strict=False):
            assert np.array_equal(ids, same_ids)
            assert position == same_position


def test_what_is_held_out_is_not_trained_on(folder) -> None:
    stream = TextStream([str(folder)], valid_fraction=0.3)
    trained, held_out = first_pass(stream), list(stream.held_out_texts())
    assert sorted(trained + held_out) == sorted(TEXTS)
    assert 2 <= len(held_out) <= 18
    assert list(TextStream([str(folder / "a.jsonl"), str(folder / "d.txt")], valid_fraction=0.3).held_out_texts()) == [
        text for text in TEXTS[:10] + TEXTS[28:29] if text in held_out
    ]


def test_a_long_document_spans_windows_and_a_position_within_it(tmp_path, tokenizer) -> None:
    text = "".join(chr(97 + number % 26) for number in range(500))
    (tmp_path / "long.txt").write_text(text)
    stream = blocks_of(tmp_path, tokenizer)
    windows = list(islice(stream.windows(), 8))
    assert [window.start.token for window in windows][:3] == [0, 35, 70]
    again = next(stream.windows(windows[5].start))
    assert np.array_equal(again.blocks, windows[5].blocks)


def test_fingerprint_knows_names_and_sizes(folder) -> None:
    before = TextStream([str(folder)]).fingerprint()
    assert TextStream([str(folder)]).fingerprint() == before
    (folder / "e.txt").write_text("other")
    assert TextStream([str(folder)]).fingerprint() != before


def test_says_where_it_is(folder) -> None:
    stream = TextStream([str(folder / "a.jsonl")])
    position = next(islice(stream.training_texts(), 13, None))[0]
    assert stream.where(position) == f"{folder / 'a.jsonl'} from document 3 token 0 on, pass 2"


@pytest.mark.parametrize("content", ["", " \n"])
def test_no_text_is_no_endless_wait(tmp_path, content) -> None:
    (tmp_path / "empty.txt").write_text(content)
    with pytest.raises(FoveateError, match=r"has no text to train on"):
        list(islice(TextStream([str(tmp_path)]).training_texts(), 3))


def test_a_damaged_file_is_heard_of_through_the_thread(tmp_path, tokenizer) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "good"}\n{"text": 3}\n')
    with pytest.raises(FoveateError, match=r"bad.jsonl, line 2: the field 'text' holds 3, not text"):
        next(blocks_of(tmp_path, tokenizer).batches(2))


def test_ahead_changes_nothing() -> None:
    assert list(ahead(iter(range(5)))) == [0, 1, 2, 3, 4]
    assert list(ahead(iter([]))) == []


def test_take_characters() -> None:
    assert list(take_characters(["ab", "cd", "ef"], 3)) == ["ab", "cd"]


def test_a_dataset_streams_and_goes_on(tmp_path) -> None:
    pytest.importorskip("datasets")
    for part in range(3):
        lines = [json.dumps({"text": f"row {part}.{number}"}) for number in range(20)]
        (tmp_path / f"part-{part}.jsonl").write_text("\n".join(lines))
    stream = TextStream([f"hf:{tmp_path}"])
    read = list(islice(stream.training_texts(), 130))
    assert [text for _, text in read[:60]] == [f"row {part}.{number}" for part in range(3) for number in range(20)]
    for number in (0, 1, 19, 20, 45, 60, 75):
        start = Position(**json.loads(json.dumps(read[number][0].to_json())))
        assert [text for _, text in islice(stream.training_texts(start), 7)] == [
            text for _, text in read[number : number + 7]
        ]
    with pytest.raises(FoveateError, match=r"no text in the field 'body'; its fields are text; .* --text-field"):
        next(TextStream([f"hf:{tmp_path}"], reading=Reading(text_field="body")).training_texts())
