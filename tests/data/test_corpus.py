"""Tokens on disk say what the text says, are made once, and never believed when damaged."""

import errno
import io
import json
import lzma
import pickle
import shutil
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from foveate.data import corpus as module
from foveate.data.corpus import Blocks, Corpus, open_corpus
from foveate.data.documents import read_documents
from foveate.data.reading import Reading, say
from foveate.data.split import split_documents
from foveate.data.store import TokenFile
from foveate.errors import FoveateError
from foveate.progress import byte_progress


@pytest.fixture
def data(tmp_path, sample):
    """A text file and a .jsonl file, 31 documents in all."""
    (tmp_path / "text.txt").write_text("A line\r\nwith <|endoftext|> spelled out\r\n", newline="")
    rows = [json.dumps({"text": text * (number % 3), "body": "x"}) for number, text in enumerate(sample[:45])]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    return [str(tmp_path / "text.txt"), str(tmp_path / "rows.jsonl")]


@pytest.fixture
def builds(monkeypatch):
    """Counts how often anything is tokenised."""
    seen = []
    encode = module.encode_documents

    def counted(tokenizer, texts, **options):
        seen.append(threading.get_ident())
        yield from encode(tokenizer, texts, **options)

    monkeypatch.setattr(module, "encode_documents", counted)
    return seen


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def texts_of(corpus: Corpus, tokenizer) -> list[str]:
    spans = zip(corpus.starts[:-1], corpus.starts[1:], strict=True)
    documents = [corpus.tokens[start:end] for start, end in spans]
    assert all(document[-1] == corpus.end_id == 256 for document in documents)
    assert all((document[:-1] != corpus.end_id).all() for document in documents)
    return [tokenizer.decode(document[:-1]) for document in documents]


@pytest.mark.parametrize("split", ["all", "train", "valid"])
def test_a_corpus_holds_the_documents(data, tokenizer, cache, split):
    corpus = open_corpus(data, tokenizer, split=split, valid_fraction=0.2, cache_dir=cache, progress=False)
    expected = list(split_documents(data, split=split, valid_fraction=0.2))
    assert texts_of(corpus, tokenizer) == expected
    assert corpus.text_bytes.tolist() == [len(text.encode()) for text in expected]
    assert corpus.tokens.dtype == np.uint16
    assert isinstance(corpus.tokens, TokenFile)
    assert not corpus.tokens[:3].flags.writeable
    everything = np.fromfile(corpus.tokens.path, np.uint16)
    for where in (slice(2, 9), slice(-5, None), slice(3, 10**9), slice(9, 2)):
        assert corpus.tokens[where].tolist() == everything[where].tolist()


def test_the_splits_of_a_corpus_are_all_of_it(data, bytes_tokenizer, cache):
    parts = {
        split: open_corpus(data, bytes_tokenizer, split=split, cache_dir=cache, progress=False)
        for split in ("all", "train", "valid")
    }
    assert len(parts["train"].tokens) + len(parts["valid"].tokens) == len(parts["all"].tokens)
    assert sorted(texts_of(parts["train"], bytes_tokenizer) + texts_of(parts["valid"], bytes_tokenizer)) == sorted(
        read_documents(data)
    )


def test_the_cache_is_found_by_content(data, tokenizer, cache, builds, tmp_path):
    def build(where=data, tokenizer=tokenizer, **options):
        before = len(builds)
        open_corpus(where, tokenizer, cache_dir=cache, progress=False, **options)
        return len(builds) - before

    assert build() == 1
    assert build() == 0
    (tmp_path / "moved").mkdir()
    moved = [shutil.copy(name, tmp_path / "moved") for name in data]
    assert build(moved) == 0
    assert build(moved[::-1]) == 1
    assert build(split="train") == build(split="valid") == 1
    assert build(split="train", valid_fraction=0.3) == 1
    assert build(split="train", valid_fraction=0.3) == 0
    assert build(data[1:], reading=Reading(text_field="body")) == 1
    tokenizer.save_pretrained(tmp_path / "saved")
    assert build(tokenizer=PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved")) == 0
    Path(data[0]).write_text("another text")
    assert build() == 1


def test_the_default_cache_follows_the_environment(data, bytes_tokenizer, cache, monkeypatch):
    monkeypatch.setenv("FOVEATE_CACHE", str(cache))
    corpus = open_corpus(data, bytes_tokenizer, progress=False)
    assert cache in corpus.tokens.path.parents


def resize(path, change: int) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:change] if change < 0 else raw + bytes(change))


def flip(path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)


DAMAGE = {
    "tokens cut": lambda folder: resize(folder / "tokens", -2),
    "tokens grown": lambda folder: resize(folder / "tokens", 2),
    "tokens gone": lambda folder: (folder / "tokens").unlink(),
    "starts cut": lambda folder: resize(folder / "starts", -8),
    "starts wrong": lambda folder: (folder / "starts").write_bytes(bytes((folder / "starts").stat().st_size)),
    "one bit of tokens": lambda folder: flip(folder / "tokens"),
    "one bit of text_bytes": lambda folder: flip(folder / "text_bytes"),
    "text_bytes cut": lambda folder: resize(folder / "text_bytes", -1),
    "manifest gone": lambda folder: (folder / "manifest.json").unlink(),
    "manifest cut": lambda folder: resize(folder / "manifest.json", -20),
    "manifest of another shape": lambda folder: (folder / "manifest.json").write_text('["tokens"]'),
    "manifest of a strange dtype": lambda folder: (folder / "manifest.json").write_text('{"tokens": {"dtype": "?!"}}'),
    "all gone": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_built_again(data, bytes_tokenizer, cache, builds, damage, capsys):
    expected = np.array(open_corpus(data, bytes_tokenizer, cache_dir=cache, progress=False).tokens)
    [folder] = (path for path in (cache / "corpus").iterdir() if path.is_dir())
    DAMAGE[damage](folder)
    again = open_corpus(data, bytes_tokenizer, cache_dir=cache, progress=False)
    assert (again.tokens == expected).all()
    assert len(builds) == 2
    gone = damage in ("manifest gone", "all gone")  # as an unfinished one, which is nothing to tell of
    assert ("are damaged" in capsys.readouterr().err) == (not gone)
    open_corpus(data, bytes_tokenizer, cache_dir=cache, progress=False)
    assert len(builds) == 2


def test_tokens_that_are_cut_while_they_are_read_are_a_line(data, bytes_tokenizer, cache):
    corpus = open_corpus(data, bytes_tokenizer, cache_dir=cache, progress=False)
    blocks = Blocks(corpus, 16)
    before = [block["input_ids"].tolist() for block in blocks]
    resize(corpus.tokens.path, -2 * (len(corpus.tokens) - 40))
    assert blocks[0]["input_ids"].tolist() == before[0]
    with pytest.raises(FoveateError, match="tokens was cut short while it was read"):
        blocks[len(blocks) - 1]


def test_a_full_disk_is_a_line(data, bytes_tokenizer, cache, monkeypatch):
    def full(folder, arrays, notes):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.store, "write_manifest", full)
    with pytest.raises(FoveateError, match="no space left for tokens in the cache"):
        open_corpus(data, bytes_tokenizer, cache_dir=cache, progress=False)


def test_what_was_found_while_reading_is_said_each_time(tmp_path, bytes_tokenizer, cache, capsys):
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\r")
    (tmp_path / "b.txt").write_bytes(b"three\n")
    (tmp_path / "c.txt").write_bytes(b"\xff")
    wanted = {"keep": "one\r\ntwo\r", "unix": "one\ntwo\n"}
    for newlines, text in wanted.items():
        for _ in range(2):  # the second finds the first one's tokens
            say.cache_clear()
            reading = Reading(newlines=newlines, skip_unreadable=True)
            corpus = open_corpus([str(tmp_path)], bytes_tokenizer, reading=reading, cache_dir=cache)
            assert texts_of(corpus, bytes_tokenizer) == [text, "three\n"]
            said = capsys.readouterr().err
            assert f"left out: {tmp_path / 'c.txt'} is not UTF-8" in said
            assert ("Windows line ends (\\r\\n) in 1 of 2 documents" in said) == (newlines == "keep")


def test_an_interrupted_build_leaves_nothing_and_what_was_left_is_cleared(data, bytes_tokenizer, cache, monkeypatch):
    def interrupted(tokenizer, texts, **options):
        yield "some text", np.zeros(3, np.uint16)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "encode_documents", interrupted)
        open_corpus(data, bytes_tokenizer, cache_dir=cache, progress=False)
    assert [path.suffix for path in (cache / "corpus").iterdir()] == [".lock"]
    [lock] = (cache / "corpus").iterdir()
    killed = lock.with_name(f".{lock.stem}.1.new")  # as a process leaves it that is killed at once
    killed.mkdir()
    (killed / "tokens").write_bytes(b"half")
    assert len(open_corpus(data, bytes_tokenizer, cache_dir=cache, progress=False).tokens)
    assert not killed.exists()


def test_two_that_build_at_once_build_once(data, bytes_tokenizer, cache, builds, monkeypatch, capsys):
    encode = module.encode_documents

    def slowly(tokenizer, texts, **options):
        time.sleep(0.3)
        yield from encode(tokenizer, texts, **options)

    monkeypatch.setattr(module, "encode_documents", slowly)
    results = []

    def build() -> None:
        results.append(open_corpus(data, bytes_tokenizer, cache_dir=cache, progress=False))

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert (np.array(results[0].tokens) == np.array(results[1].tokens)).all()
    assert "waiting for another process" in capsys.readouterr().err


def test_bad_data_is_reported_and_not_kept(tmp_path, bytes_tokenizer, cache):
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{"text": 1}\n')
    for _ in range(2):
        with pytest.raises(FoveateError, match="line 2"):
            open_corpus(str(tmp_path / "a.jsonl"), bytes_tokenizer, cache_dir=cache, progress=False)


def test_a_cache_that_cannot_be_written(data, bytes_tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FoveateError, match="set FOVEATE_CACHE to a folder of yours"):
        open_corpus(data, bytes_tokenizer, cache_dir=tmp_path / "file", progress=False)


def test_a_tokenizer_without_end_of_text(data, cache):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(FoveateError, match="no end-of-text token"):
        open_corpus(data, tokenizer, cache_dir=cache)


def test_progress_is_one_line_where_there_is_no_terminal(data, bytes_tokenizer, cache, capsys):
    open_corpus(data, bytes_tokenizer, split="train", cache_dir=cache)
    line, *notes = capsys.readouterr().err.splitlines()
    assert line.startswith("tokenising train text: 0.0 MB in 30 documents are ")
    assert all("Windows line ends" in note for note in notes)
    open_corpus(data, bytes_tokenizer, split="train", cache_dir=cache)
    assert capsys.readouterr().err == ""


def test_progress_lines_are_sparse(monkeypatch, capsys):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("foveate.progress.time.monotonic", lambda: float(next(clock)))
    with byte_progress("reading", 20_000_000, show=True) as advance:
        for _ in range(6):
            advance(2_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "reading: 6.0 of 20.0 MB, 0.5 MB/s, 28 s left",
        "reading: 12.0 of 20.0 MB, 0.5 MB/s, 16 s left",
    ]


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with byte_progress("tokenising", 2_000_000, show=True) as advance:
        advance(1_000_000)
        time.sleep(0.15)
    assert "tokenising" in screen.getvalue()
    assert "1.0/2.0 MB" in screen.getvalue()


def in_memory(tokens) -> Corpus:
    tokens = np.array(tokens, np.uint16)
    return Corpus(tokens=tokens, starts=np.array([0, len(tokens)]), text_bytes=np.array([len(tokens) - 1]), end_id=256)


@given(length=st.integers(2, 200), context=st.integers(2, 70))
def test_every_token_but_the_first_is_predicted_once(length, context):
    tokens = np.arange(length) + 1000
    if length < context:
        with pytest.raises(FoveateError, match=f"has {length} tokens, fewer than one block of {context}"):
            Blocks(in_memory(tokens), context)
        return
    predicted = []
    for block in Blocks(in_memory(tokens), context):
        ids, labels = block["input_ids"], block["labels"]
        assert ids.shape == labels.shape == (context,)
        assert ids.dtype == labels.dtype == torch.int64
        assert (ids.diff() == 1).all()
        assert ((labels == ids) | (labels == -100)).all()
        predicted += labels[1:][labels[1:] != -100].tolist()
    assert predicted == list(range(1001, 1000 + length))


def test_blocks_overlap_by_one_token():
    blocks = Blocks(in_memory(range(9)), 5)
    assert [block["input_ids"].tolist() for block in blocks] == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]
    assert all(block["labels"].tolist() == block["input_ids"].tolist() for block in blocks)
    assert len(blocks) == 2
    for outside in (-1, 2):
        with pytest.raises(IndexError):
            blocks[outside]


def test_a_block_says_where_it_is():
    corpus = Corpus(
        tokens=np.arange(11, dtype=np.uint16), starts=np.array([0, 6, 11]), text_bytes=np.array([5, 4]), end_id=256
    )
    blocks = Blocks(corpus, 5)  # tokens 0 to 4, 4 to 8, and for the last two 6 to 10
    assert [blocks.where(index) for index in range(len(blocks))] == [
        "document 0 tokens 0-4",
        "document 0 token 4 to document 1 token 2",
        "document 1 tokens 0-4",
    ]


@pytest.mark.parametrize("context", [1, 0, -3])
def test_a_context_too_short_to_predict(context):
    with pytest.raises(FoveateError, match="at least 2"):
        Blocks(in_memory(range(9)), context)


def test_pickled_blocks_carry_the_file_name_not_the_tokens(tmp_path, bytes_tokenizer, cache):
    (tmp_path / "a.txt").write_text("some text " * 10_000)
    blocks = Blocks(open_corpus(str(tmp_path / "a.txt"), bytes_tokenizer, cache_dir=cache, progress=False), 64)
    pickled = pickle.dumps(blocks)
    assert len(pickled) < 2000
    again = pickle.loads(pickled)
    assert len(again) == len(blocks)
    assert all(torch.equal(again[at]["input_ids"], blocks[at]["input_ids"]) for at in (0, 7, len(blocks) - 1))
    small = Blocks(in_memory(range(9)), 5)
    assert torch.equal(pickle.loads(pickle.dumps(small))[1]["input_ids"], small[1]["input_ids"])


def test_a_corpus_is_never_held_in_memory(tmp_path, bytes_tokenizer, cache):
    with lzma.open(tmp_path / "a.jsonl.xz", "wt", preset=0) as file:
        for number in range(2000):
            file.write(json.dumps({"text": f"{number} some words\n" * 300}) + "\n")
    tracemalloc.start()
    corpus = open_corpus(str(tmp_path / "a.jsonl.xz"), bytes_tokenizer, cache_dir=cache, progress=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(corpus.tokens) > 9_000_000
    assert peak < 4_000_000
