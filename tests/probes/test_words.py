"""What a word is, and counting words in texts of any size."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.probes.words import WORD, count_words, fold, segment, vocabulary_of

texts = st.text(st.sampled_from("aB1 \n'’-._“é́東क्ष\u00a0🙂"), max_size=40)


def parts(text: str) -> list[tuple[str, str]]:
    """Each segment, and its word."""
    segments = segment(text)
    starts = [0, *segments.ends][:-1]
    return [
        (text[start:end], text[word:end] if word >= 0 else "")
        for start, end, word in zip(starts, segments.ends, segments.words, strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("don’t  stop—now", ["don’t", "stop", "now"]),
        ("'tis the dogs' 3rd _word_", ["tis", "the", "dogs", "3rd", "word"]),
        ("naïve na\u0131\u0308ve क्षण", ["naïve", "na\u0131\u0308ve", "क्षण"]),
        ("... \n", []),
    ],
)
def test_words(text, words) -> None:
    assert WORD.findall(text) == words
    assert [word for _, word in parts(text) if word] == words


def test_space_belongs_to_what_follows() -> None:
    found = parts("A cat, \n“so” \n")
    assert found == [("A", "A"), (" cat", "cat"), (",", ""), (" \n“", ""), ("so", "so"), ("”", ""), (" \n", "")]


@given(texts)
def test_segments_are_the_whole_text(text) -> None:
    found = parts(text)
    assert "".join(piece for piece, _ in found) == text
    assert all(piece for piece, _ in found)
    assert [word for _, word in found if word] == WORD.findall(text)
    assert all(piece.lstrip() == word for piece, word in found if word)


def test_words_are_compared_without_case_and_shape_of_apostrophe() -> None:
    assert fold("Don’t") == fold("DON'T") == "don't"
    assert vocabulary_of(["The cat", "the Don’t"]) == {"the", "cat", "don't"}


def test_counts() -> None:
    counts = count_words(["The cat saw the", " dog. THE END"], {"the", "cat", "mouse"})
    assert counts.of == {"the": 3, "cat": 1, "mouse": 0}
    assert counts.total == 7


def test_counting_keeps_nothing_of_the_text() -> None:
    seen = []
    pieces = (f"{number:05} " * 5_000 for number in range(40))
    tracemalloc.start()
    counts = count_words(pieces, {"00007"}, advance=seen.append)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts.of == {"00007": 5_000}
    assert seen == [30_000] * 40
    assert peak < sum(seen)
