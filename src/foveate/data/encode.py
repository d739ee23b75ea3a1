"""From documents to token ids: whole documents, plain text only, fast.

A document's text is never read as special tokens: a book that spells out ``<|endoftext|>`` does not end there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from foveate.data.tokenizer import is_byte_tokenizer, vocabulary_size

PIECE = 8_192  # characters; longer ones fall out of the processor's cache and take up to twice as long
BATCH = 64  # pieces: enough to keep all cores busy, few enough that their encodings stay small
BETWEEN_WORDS = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])")
PROBE = "The cat sat on A MAT and I saw It"


def token_dtype(tokenizer: PreTrainedTokenizerBase) -> np.dtype:
    """The smallest of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16 if vocabulary_size(tokenizer) <= 1 << 16 else np.uint32)


def encode_documents(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Each text with its ids (uint16 or uint32, no special tokens), in order, reading a few texts ahead.

    The ids are those of the whole text in one piece, whatever its length.
    """
    dtype = token_dtype(tokenizer)
    backend = document_backend(tokenizer)
    if backend is None:
        for text in texts:
            ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
            yield text, np.array(ids, dtype)
    elif is_byte_tokenizer(backend):
        for text in texts:
            yield text, np.frombuffer(text.encode(), np.uint8).astype(dtype)
    else:
        cut = _cut_between_words if _never_joins_words(backend) else _leave_whole
        yield from _encode_in_batches(backend, texts, cut, dtype)


def document_backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer | None:
    """A copy of the tokenizer's fast core that reads special tokens as plain text and neither pads nor truncates.

    None for the few tokenizers that are written in Python.
    """
    original = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(original, Tokenizer):
        return None
    backend = Tokenizer.from_str(original.to_str())
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True
    return backend


def _encode_in_batches(
    backend: Tokenizer, texts: Iterable[str], cut: Callable[[str], Iterator[str]], dtype: np.dtype
) -> Iterator[tuple[str, np.ndarray]]:
    def encoded_pieces() -> Iterator[tuple[int, str, np.ndarray]]:
        batch: list[tuple[int, str, str]] = []
        for number, text in enumerate(texts):
            for piece in cut(text):
                batch.append((number, text, piece))
                if len(batch) == BATCH:
                    yield from encoded(batch)
                    batch = []
        yield from encoded(batch)

    def encoded(batch: list[tuple[int, str, str]]) -> Iterator[tuple[int, str, np.ndarray]]:
        encodings = backend.encode_batch_fast([piece for _, _, piece in batch], add_special_tokens=False)
        for (number, text, _), encoding in zip(batch, encodings, strict=True):
            yield number, text, np.array(encoding.ids, dtype)

    for _, pieces in groupby(encoded_pieces(), key=lambda piece: piece[0]):
        parts = list(pieces)
        yield parts[0][1], np.concatenate([ids for _, _, ids in parts])


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


def _leave_whole(text: str) -> Iterator[str]:
    yield text
