"""Words in text: what counts as one, where they stand, and how often they occur in a training text.

A word is a run of letters and digits, with the apostrophes inside it (``don't``); a script that is written without
spaces is not taken apart further. Words are compared without regard to case.

Legend: S segments of a text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import regex

_LETTER, _REST_OF_WORD = r"[\p{L}\p{N}]", r"[\p{L}\p{N}\p{M}]"
_WORD = rf"{_LETTER}{_REST_OF_WORD}*(?:['’]{_REST_OF_WORD}+)*"
WORD = regex.compile(_WORD)
# white space belongs to what follows it, as in the tokens of most tokenizers
SEGMENT = regex.compile(rf"\s*(?:({_WORD})|[^\s\p{{L}}\p{{N}}]+)|\s+")


@dataclass(frozen=True, kw_only=True)
class Segments:
    """A text taken apart without a rest: each segment is a word, or what stands between two, with the space before it.

    Segment s is ``text[ends[s - 1] : ends[s]]``; ``words[s]`` is where its word begins, -1 where it has none.
    """

    ends: np.ndarray  # int64 [S], characters
    words: np.ndarray  # int64 [S], characters


@dataclass(frozen=True, kw_only=True)
class TrainingCounts:
    """How often each of some words occurs in a training text of ``total`` words."""

    of: Mapping[str, int]
    total: int


def fold(word: str) -> str:
    """The form in which words are compared."""
    return word.lower().replace("’", "'")


def segment(text: str) -> Segments:
    """The words of a text and what is between them."""
    found = [(match.end(), match.start(1)) for match in SEGMENT.finditer(text)]
    ends_and_words = np.array(found, np.int64).reshape(-1, 2)
    return Segments(ends=ends_and_words[:, 0], words=ends_and_words[:, 1])


def vocabulary_of(texts: Iterable[str]) -> frozenset[str]:
    """The different words of some texts, folded."""
    return frozenset(fold(word) for text in texts for word in set(WORD.findall(text)))


def count_words(
    pieces: Iterable[str], vocabulary: Set[str], *, advance: Callable[[int], Any] = lambda text_bytes: None
) -> TrainingCounts:
    """Count the words of ``vocabulary`` (folded) in a text that comes in pieces, of which none is kept.

    Memory grows with the vocabulary and the largest piece, not with the text. ``advance`` is called with each number
    of UTF-8 bytes counted.
    """
    counts = dict.fromkeys(vocabulary, 0)
    total = 0
    for piece in pieces:
        for word, times in Counter(WORD.findall(piece)).items():
            total += times
            folded = fold(word)
            if folded in counts:
                counts[folded] += times
        advance(len(piece.encode()))
    return TrainingCounts(of=counts, total=total)
