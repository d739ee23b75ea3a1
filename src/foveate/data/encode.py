"""From documents to token ids: whole documents, fast, and as plain text.

No text is read as special tokens unless asked: a book that spells out ``<|endoftext|>`` does not end there.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from foveate.data.tokenizer import is_byte_tokenizer, vocabulary_size

PIECE = 8_192  # characters; longer ones fall out of the processor's cache and take up to twice as long
BATCH = 64 * PIECE  # characters: enough to keep all cores busy, few enough that their encodings stay small
BETWEEN_WORDS = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])")
Encode = Callable[[list[str]], list[np.ndarray]]
Cut = Callable[[str], Iterator[str]]

PROBE = "The cat sat on A MAT and I saw It"


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """How a tokenizer encodes pieces of text, and how a text may be cut into them without changing its ids."""

    encode: Encode
    cut: Cut
    tokens: int  # that the tokenizer had


# of each tokenizer those that read special tokens as text, and as tokens
_encoders: tuple[weakref.WeakKeyDictionary[PreTrainedTokenizerBase, TextEncoder], ...] = (
    weakref.WeakKeyDictionary(),
    weakref.WeakKeyDictionary(),
)


def token_dtype(tokenizer: PreTrainedTokenizerBase) -> np.dtype:
    """The smallest of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16 if vocabulary_size(tokenizer) <= 1 << 16 else np.uint32)


def encode_documents(
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    *,
    special_tokens: bool = False,
    advance: Callable[[int], object] | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Each text with its ids (uint16 or uint32, without marks around them), in order, reading a few texts ahead.

    The ids are those of the whole text in one piece, whatever its length.

    Args:
        special_tokens: let special tokens that a text spells out become ids of their own.
        advance: called with each number of UTF-8 bytes encoded, many times in a long text.
    """
    encoder = text_encoder(tokenizer, special_tokens=special_tokens)
    pieces = ((number, text, piece) for number, text in enumerate(texts) for piece in encoder.cut(text))

    def encoded() -> Iterator[tuple[int, str, np.ndarray]]:
        for batch in _batches(pieces):
            for (number, text, piece), ids in zip(batch, encoder.encode([piece for _, _, piece in batch]), strict=True):
                yield number, text, ids
                if advance is not None:
                    advance(len(piece.encode()))

    for _, parts in groupby(encoded(), key=lambda part: part[0]):
        (_, text, first), *others = parts
        yield text, np.concatenate([first, *(ids for _, _, ids in others)])


def document_backend(tokenizer: PreTrainedTokenizerBase, *, special_tokens: bool = False) -> Tokenizer | None:
    """A copy of the tokenizer's fast core that reads special tokens as plain text and neither pads nor truncates.

    None for the few tokenizers that are written in Python.
    """
    original = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(original, Tokenizer):
        return None
    backend = Tokenizer.from_str(original.to_str())
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = not special_tokens
    backend.post_processor = None  # it puts marks around a text, and decides no id of the text itself
    return backend


def text_encoder(tokenizer: PreTrainedTokenizerBase, *, special_tokens: bool = False) -> TextEncoder:
    """The tokenizer's encoder, made once: the copy of a large vocabulary takes tenths of a second."""
    known = _encoders[special_tokens].get(tokenizer)
    if known is not None and known.tokens == len(tokenizer):
        return known
    dtype = token_dtype(tokenizer)
    backend = document_backend(tokenizer, special_tokens=special_tokens)
    if backend is not None:
        encode, cut = _fast_encoder(backend, dtype, special_tokens)
        made = _encoders[special_tokens][tokenizer] = TextEncoder(encode=encode, cut=cut, tokens=len(tokenizer))
        return made

    def encode_slowly(pieces: list[str]) -> list[np.ndarray]:
        options: dict[str, bool] = {"add_special_tokens": False, "split_special_tokens": not special_tokens}
        return [np.array(ids, dtype) for ids in tokenizer(pieces, verbose=False, **options)["input_ids"]]

    # not remembered: it holds the tokenizer itself, and costs nothing to make
    return TextEncoder(encode=encode_slowly, cut=_leave_whole, tokens=len(tokenizer))


def _fast_encoder(backend: Tokenizer, dtype: np.dtype, special_tokens: bool) -> tuple[Encode, Cut]:
    if is_byte_tokenizer(backend) and not special_tokens:
        return lambda pieces: [np.frombuffer(piece.encode(), np.uint8).astype(dtype) for piece in pieces], _cut_anywhere

    def encode_fast(pieces: list[str]) -> list[np.ndarray]:
        return [np.array(found.ids, dtype) for found in backend.encode_batch_fast(pieces, add_special_tokens=False)]

    may_cut = not special_tokens and _never_joins_words(backend)
    return encode_fast, _cut_between_words if may_cut else _leave_whole


def _batches(pieces: Iterable[tuple[int, str, str]]) -> Iterator[list[tuple[int, str, str]]]:
    batch, size = [], 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece[2])
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _never_joins_words(backend: Tokenizer) -> bool:
    """Whether no token reaches across the space between two words, so that a text may be cut there."""
    if backend.pre_tokenizer is None or backend.normalizer is not None:
        return False
    starts = {start for _, (start, _) in backend.pre_tokenizer.pre_tokenize_str(PROBE)}
    return starts.issuperset(at for at, character in enumerate(PROBE) if character == " ")


def _cut_between_words(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > PIECE and (found := BETWEEN_WORDS.search(text, start + PIECE)):
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]


def _cut_anywhere(text: str) -> Iterator[str]:
    for start in range(0, len(text) or 1, BATCH):
        yield text[start : start + BATCH]


def _leave_whole(text: str) -> Iterator[str]:
    yield text
