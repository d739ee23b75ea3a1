"""Several tokenizers on one text: the pieces of it that all of them part, and windows that show each the same text.

An item is the shortest run of segments whose two ends no token of any tokenizer reaches across. So the loss of an
item, summed over its tokens, is that of the same characters whatever the tokenizer: nearly always of one word and the
space before it. Where a token joins a word with punctuation, the item is both; where it joins words, it is all of them.

Legend: S segments of a text, I its items, N its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import processors

from foveate.data.encode import document_backend
from foveate.errors import FoveateError
from foveate.probes.words import Segments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A text's token ids, without marks around it, and the characters each stands for.

    Tokens that share a character, such as the bytes of one, each stand for all of it.
    """

    ids: np.ndarray  # int64 [N]
    starts: np.ndarray  # int64 [N]
    ends: np.ndarray  # int64 [N], never falling


@dataclass(frozen=True, kw_only=True)
class Items:
    """The items of a text: item i is ``text[ends[i - 1] : ends[i]]``."""

    ends: np.ndarray  # int64 [I], characters
    segments: np.ndarray  # int64 [I]: segments up to its end
    tokens: tuple[np.ndarray, ...]  # of each tokenizer int64 [I]: tokens up to its end


@dataclass(frozen=True, kw_only=True)
class Window:
    """Items ``start`` to ``end`` of a text, of which those from ``scored`` on are scored."""

    start: int
    scored: int
    end: int


def find_tokens(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], Tokens]:
    """A function that gives the ids of a text and where they stand in it.

    Raises:
        FoveateError: the tokenizer is one of the few that do not know where.
    """
    backend = document_backend(tokenizer)
    if backend is None:
        raise FoveateError(
            f"the tokenizer {type(tokenizer).__name__} cannot say which characters a token stands for; "
            f"use one of the fast kind, which have a tokenizer.json"
        )
    backend.post_processor = processors.Sequence([])  # some leave white space out of what a token stands for

    def find(text: str) -> Tokens:
        encoding = backend.encode(text, add_special_tokens=False)
        starts, ends = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
        return Tokens(ids=np.array(encoding.ids, np.int64), starts=starts, ends=np.maximum.accumulate(ends))

    return find


def shared_items(segments: Segments, tokenized: Sequence[Tokens]) -> Items:
    """The items of a text under several tokenizers."""
    shared_S = np.ones(len(segments.ends), bool)
    for tokens in tokenized:
        next_S = np.searchsorted(tokens.ends, segments.ends, "right")  # the first token that ends beyond
        # where the tokens from n on begin; past the last one nowhere
        begin_N = np.append(np.minimum.accumulate(tokens.starts[::-1])[::-1], np.iinfo(np.int64).max)
        shared_S &= begin_N[next_S] >= segments.ends
    ends_I = segments.ends[shared_S]
    return Items(
        ends=ends_I,
        segments=np.flatnonzero(shared_S) + 1,
        tokens=tuple(np.searchsorted(tokens.ends, ends_I, "right") for tokens in tokenized),
    )


def windows(items: Items, context: int) -> Iterator[Window]:
    """Windows of at most ``context`` tokens of any tokenizer, in which every item is scored once.

    The first window of a text is scored from its beginning; of each further one about the first half has been scored
    before and is there as context. An item longer than a window is left out, and no window reaches across it.
    """
    # tokens before each item, and after the last
    before_I = [np.concatenate([[0], tokens_I]) for tokens_I in items.tokens]

    def reach(start: int, room: int) -> int:
        """The end of the longest run of items from ``start`` within ``room`` tokens."""
        return min(int(np.searchsorted(before, before[start] + room, "right")) - 1 for before in before_I)

    scored = 0
    while scored < len(items.ends):
        end = reach(scored, context // 2 if scored else context)
        end = max(end, min(scored + 1, reach(scored, context)))
        if end == scored:
            scored += 1
            continue
        start = max(int(np.searchsorted(before, before[end] - context, "left")) for before in before_I)
        yield Window(start=start, scored=scored, end=end)
        scored = end
