"""Documents to be scored: token ids with the number of bytes they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from foveate.data.encode import encode_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from foveate.data.corpus import Corpus

SAMPLE_LENGTH = 4096  # tokens of a document that make it worth reading


@dataclass(frozen=True, kw_only=True)
class Document:
    """A text as token ids (int64 [tokens]), without marks around it, and its length in UTF-8 bytes."""

    ids: np.ndarray
    text_bytes: int


def as_documents(
    tokenizer: PreTrainedTokenizerBase, given: Iterable[str] | Iterable[Document], special_tokens: bool = False
) -> Iterator[Document]:
    """Texts tokenised, documents as they are."""
    items: Iterator[str | Document] = iter(given)
    for first in items:
        everything = chain([first], items)
        return _tokenized(tokenizer, everything, special_tokens) if isinstance(first, str) else everything  # type: ignore
    return iter(())


def _tokenized(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], special_tokens: bool) -> Iterator[Document]:
    for text, ids in encode_documents(tokenizer, texts, special_tokens=special_tokens):
        yield Document(ids=ids.astype(np.int64), text_bytes=len(text.encode()))


def corpus_documents(corpus: Corpus) -> Iterator[Document]:
    """The documents of a tokenised corpus, read as they are needed."""
    for start, end, text_bytes in zip(corpus.starts[:-1], corpus.starts[1:], corpus.text_bytes, strict=True):
        yield Document(ids=corpus.tokens[start : end - 1].astype(np.int64), text_bytes=int(text_bytes))


def sample_documents(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[Document]:
    """About ``tokens`` tokens: the middles of documents evenly spaced through the corpus, or all of a smaller one."""
    if len(corpus.tokens) <= tokens:
        return list(corpus_documents(corpus))
    count = len(corpus.text_bytes)
    chosen = np.unique(np.linspace(0, count - 1, min(count, -(-tokens // SAMPLE_LENGTH))).round().astype(int))
    each = -(-tokens // len(chosen))
    documents = []
    for start, end in zip(corpus.starts[chosen], corpus.starts[chosen + 1] - 1, strict=True):
        first = start + max(0, end - start - each) // 2
        ids = corpus.tokens[first : min(end, first + each)].astype(np.int64)
        documents.append(Document(ids=ids, text_bytes=_count_bytes(tokenizer, ids)))
    return documents


def cut(document: Document, tokens: int, tokenizer: PreTrainedTokenizerBase) -> Document:
    """The first ``tokens`` tokens of a document."""
    if tokens >= len(document.ids):
        return document
    ids = document.ids[:tokens]
    return replace(document, ids=ids, text_bytes=_count_bytes(tokenizer, ids))


def _count_bytes(tokenizer: PreTrainedTokenizerBase, ids: np.ndarray) -> int:
    """Bytes of the text that ids decode to, less the parts of characters that were cut at its ends."""
    return len(str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)).strip("\ufffd").encode())
