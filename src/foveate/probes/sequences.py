"""Sequences of one length, each out of one document, and stretches of other documents to put in their place.

Legend: N sequences, T tokens of one, P draws for each.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from foveate.errors import FoveateError, shown

PARTS = 8  # that a single document is cut into


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Non-overlapping stretches of documents, in random order."""

    ids: np.ndarray  # int64 [N, T]
    document: np.ndarray  # int64 [N]: which document a sequence is of
    available: int  # how many the text would have given

    @property
    def digest(self) -> str:
        return hashlib.blake2b(self.ids.tobytes(), digest_size=16).hexdigest()


def split_at(texts: Iterable[str], pattern: str) -> Iterator[str]:
    """Every text cut before each match of a regular expression, ``^`` and ``$`` meaning lines; no part is empty.

    Raises:
        FoveateError: at once if ``pattern`` is no regular expression.
    """
    try:
        found = re.compile(pattern, re.MULTILINE)
    except (re.error, OverflowError, RecursionError) as error:
        raise FoveateError(f"--split-at: {shown(pattern)} is not a regular expression: {error}") from None
    return _split(texts, found)


def _split(texts: Iterable[str], pattern: re.Pattern[str]) -> Iterator[str]:
    for text in texts:
        edges = [0, *(match.start() for match in pattern.finditer(text)), len(text)]
        yield from (part for start, end in pairwise(edges) if (part := text[start:end]).strip())


def cut_sequences(documents: Sequence[np.ndarray], context: int, count: int, seed: int) -> Sequences:
    """``count`` sequences drawn from all that lie end to end in each document, or all there are.

    Args:
        documents: token ids of each, of any integer type.
        seed: of the draw, and of where in a document the first sequence starts.

    Raises:
        FoveateError: no document has ``context`` tokens.
    """
    random = np.random.default_rng(seed)
    whole = np.array([len(ids) // context for ids in documents], np.int64)
    if not whole.sum():
        longest = max(map(len, documents), default=0)
        raise FoveateError(
            f"the text is too short for one sequence of {context:,} tokens: its longest document has {longest:,}; "
            f"give more text or a smaller --context"
        )
    spare = np.array([len(ids) for ids in documents]) - whole * context
    offset = random.integers(spare + 1)
    document = np.repeat(np.arange(len(documents)), whole)
    start = np.concatenate([offset[d] + context * np.arange(whole[d]) for d in range(len(documents))])
    chosen = random.permutation(len(document))[:count]
    ids = [
        documents[d][s : s + context] for d, s in zip(document[chosen].tolist(), start[chosen].tolist(), strict=True)
    ]
    return Sequences(ids=np.stack(ids).astype(np.int64), document=document[chosen], available=len(document))


def parts_of_one(documents: Sequence[np.ndarray], context: int, length: int) -> list[np.ndarray]:
    """The documents, of which the only one of ``length`` tokens is cut into up to ``PARTS``, of a ``context`` at least.

    So ``foreign_text`` has something to take from where the data is one book; unchanged where it has, or cannot have.
    """
    long = [number for number, ids in enumerate(documents) if len(ids) >= length]
    count = min(PARTS, len(documents[long[0]]) // context) if len(long) == 1 else 0
    if count < 2:
        return list(documents)
    one = long[0]
    return [*documents[:one], *np.array_split(documents[one], count), *documents[one + 1 :]]


def foreign_text(
    documents: Sequence[np.ndarray], document_N: np.ndarray, length: int, draws: int, random: np.random.Generator
) -> np.ndarray:
    """For each sequence, ``draws`` stretches of ``length`` tokens of other documents: int64 [N, P, length].

    Every stretch of every other document is as likely as any other.

    Raises:
        FoveateError: no other document has so many tokens.
    """
    room = np.maximum([len(ids) - length + 1 for ids in documents], 0)
    for document in np.unique(document_N):
        if room.sum() == room[document]:
            number = f"{len(documents)} documents" if len(documents) > 1 else "one document"
            raise FoveateError(
                f"replace takes {length:,} tokens from another document, and the data is {number} with none other as "
                f"long; give more text or files, or leave it out: --conditions shuffle truncate"
            )
    ends = np.cumsum(room)
    # a place among all stretches but those of the own document, which are skipped
    own_start, own = (ends - room)[document_N, None], room[document_N, None]
    place = random.integers(ends[-1] - own, size=(len(document_N), draws))
    place += np.where(place >= own_start, own, 0)
    drawn = np.searchsorted(ends, place, side="right")
    start = place - (ends - room)[drawn]
    rows = [
        documents[d][s : s + length] for d, s in zip(drawn.flatten().tolist(), start.flatten().tolist(), strict=True)
    ]
    return np.stack(rows).astype(np.int64).reshape(*drawn.shape, length)
