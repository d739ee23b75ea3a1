"""Text tokenised while it is trained on, for corpora too large to be tokenised first.

The stream is one sequence of tokens, document after document, pass after pass, whoever reads it: it is cut into blocks,
and the blocks are shuffled within windows. A position in it is a few numbers, from which it goes on exactly.

Legend: N blocks of a window, T tokens of a block.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from foveate.data.documents import Source, as_names, find_sources, readable
from foveate.data.encode import encode_documents
from foveate.data.hub import HubDataset
from foveate.data.reading import AS_IT_IS, Reading
from foveate.data.split import text_hash
from foveate.errors import FoveateError

WINDOW_TOKENS = 1 << 20  # a few seconds of tokenising: so long it takes to go on
HASHES = 1 << 64

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a stream stands: at block ``block`` of window ``window``, whose first token this also says.

    Attributes:
        turn, source, place: the pass over the data, the number of the source in it, and how far into that source the
            first token's document is: JSON that the source itself understands, None for its beginning.
        token: the first token's number in that document.
    """

    turn: int = 0
    source: int = 0
    place: Any = None
    token: int = 0
    window: int = 0
    block: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Consecutive blocks of a stream in a random order."""

    start: Position
    blocks: np.ndarray  # uint16 or uint32 [N, T]


class TextStream:
    """The documents of ``data``, read as they are needed, and over again without end.

    Args:
        data, reading: as in ``read_documents``.
        valid_fraction: the part of the documents that is held out, by the hashes of their texts.
        seed: decides in which order a pass takes the files.

    Raises:
        FoveateError: at once where something is missing.
    """

    def __init__(self, data: Sequence[str], *, reading: Reading = AS_IT_IS, valid_fraction: float = 0.0, seed: int = 0):
        self.names = as_names(data)
        self.reading = reading
        self.held_out_below = int(valid_fraction * HASHES)
        self.seed = seed
        self.sources = [source for name in self.names for source in find_sources(name)]

    def fingerprint(self) -> str:
        """Changes with the names and sizes of the files; their contents are too long to look at."""
        known = [
            source.name if isinstance(source, HubDataset) else f"{source.path.name} {source.path.stat().st_size}"
            for source in self.sources
        ]
        return hashlib.blake2b(repr(known).encode(), digest_size=16).hexdigest()

    def training_texts(self, start: Position | None = None) -> Iterator[tuple[Position, str]]:
        """Each document with its position, from ``start`` on, without end."""
        start = start or Position()
        turn, first, place = start.turn, start.source, start.place
        while True:
            whole_pass, has_text = first == 0 and place is None, False
            for number, source in islice(enumerate(self._order(turn)), first, None):
                for before, text in _documents(source, self.reading, place):
                    if text and not self._is_held_out(text):
                        has_text = has_text or not text.isspace()
                        yield Position(turn=turn, source=number, place=before), text
                place = None
            if whole_pass and not has_text:
                raise FoveateError(f"data {', '.join(map(repr, self.names))} has no text to train on")
            turn, first = turn + 1, 0

    def held_out_texts(self) -> Iterator[str]:
        """The documents that are not trained on, in one pass."""
        for source in self.sources:
            for _, text in _documents(source, self.reading, None):
                if text and self._is_held_out(text):
                    yield text

    def where(self, position: Position) -> str:
        """A position for a person."""
        source = self._order(position.turn)[position.source]
        if isinstance(source, HubDataset):
            return f"pass {position.turn + 1} of {source.name}"
        return f"{source.path} from document {position.place} token {position.token} on, pass {position.turn + 1}"

    def _order(self, turn: int) -> list[Source]:
        order = list(self.sources)
        random.Random(f"{self.seed} {turn}").shuffle(order)
        return order

    def _is_held_out(self, text: str) -> bool:
        return bool(self.held_out_below) and text_hash(text.encode()) < self.held_out_below


def _documents(source: Source, reading: Reading, place: Any) -> Iterator[tuple[Any, str]]:
    """Each document of a source from ``place`` on, with its own place."""
    if isinstance(source, HubDataset):
        for before, text in source.stream(reading.text_field, place):
            yield before, reading.text(text)
        return
    first = place or 0
    yield from enumerate(islice(readable(source.documents(reading.text_field), reading), first, None), first)


class BlockStream:
    """A text stream tokenised and cut into blocks of ``context`` tokens for a causal language model.

    Documents are joined by end-of-text marks; a block starts with the last token of the one before, so that every
    token but the first is predicted once in a pass.
    """

    def __init__(
        self,
        texts: TextStream,
        tokenizer: PreTrainedTokenizerBase,
        *,
        context: int,
        window_tokens: int | None = None,
    ) -> None:
        assert tokenizer.eos_token_id is not None
        self.texts = texts
        self.tokenizer = tokenizer
        self.context = context
        self.blocks_per_window = max(1, (window_tokens or WINDOW_TOKENS) // context)

    def windows(self, start: Position | None = None) -> Iterator[Window]:
        """The windows from the one of ``start`` on, without end."""
        start = start or Position()
        number = start.window
        step, needed = self.context - 1, self.blocks_per_window * (self.context - 1) + 1
        documents: deque[tuple[Position, np.ndarray]] = deque()
        held, token = -start.token, start.token
        for position, ids_N in self._tokenised(start):
            documents.append((position, ids_N))
            held += len(ids_N)
            while held >= needed:
                tokens_N = np.concatenate([ids_N for _, ids_N in documents])[token : token + needed]
                blocks_NT = np.lib.stride_tricks.sliding_window_view(tokens_N, self.context)[::step]
                order = np.random.default_rng([self.texts.seed, number]).permutation(len(blocks_NT))
                first = documents[0][0]
                where = {"turn": first.turn, "source": first.source, "place": first.place, "token": token}
                yield Window(start=Position(**where, window=number), blocks=blocks_NT[order])
                number += 1
                held -= needed - 1
                token += needed - 1
                while token >= len(documents[0][1]):
                    token -= len(documents.popleft()[1])

    def _tokenised(self, start: Position) -> Iterator[tuple[Position, np.ndarray]]:
        """Each document's position and ids, the end-of-text mark included."""
        positions: deque[Position] = deque()

        def texts() -> Iterator[str]:
            for position, text in self.texts.training_texts(start):
                positions.append(position)
                yield text

        for _, ids_N in encode_documents(self.tokenizer, texts()):
            yield positions.popleft(), np.append(ids_N, ids_N.dtype.type(self.tokenizer.eos_token_id))

    def batches(self, batch: int, start: Position | None = None) -> Iterator[tuple[np.ndarray, Position]]:
        """Batches of int64 [batch, T], each with the position after it, from ``start`` on, without end."""
        start = start or Position()
        waiting: list[np.ndarray] = []
        skip = start.block
        for window in ahead(self.windows(start)):
            for number in range(skip, len(window.blocks)):
                waiting.append(window.blocks[number])
                if len(waiting) == batch:
                    yield np.stack(waiting).astype(np.int64), replace(window.start, block=number + 1)
                    waiting = []
            skip = 0


def take_characters(texts: Iterable[str], characters: int) -> Iterator[str]:
    """The first texts, until there are so many characters."""
    taken = 0
    for text in texts:
        yield text
        taken += len(text)
        if taken >= characters:
            return


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """``items``, of which the next is made while one is used."""
    end = object()
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
