"""A corpus of tokens: text tokenised once, kept in a file that is found again by its contents."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from foveate.data import store
from foveate.data.documents import as_names, fingerprint, read_documents
from foveate.data.encode import document_backend, encode_documents, token_dtype
from foveate.data.reading import AS_IT_IS, Reading, say
from foveate.data.split import check_split, split_documents, survey_documents
from foveate.errors import FoveateError
from foveate.progress import byte_progress

__all__ = ["Blocks", "Corpus", "open_corpus", "read_documents", "split_documents"]

FORMAT = 1  # part of every cache key: raise it when equal inputs would give other files
IGNORED_LABEL = -100


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents as token ids, one after the other, each followed by the end-of-text id.

    Document d is ``tokens[starts[d] : starts[d + 1]]``, the last of them end-of-text. Pickling one that
    ``open_corpus`` gave carries the name of its file, not the tokens.
    """

    tokens: np.ndarray | store.TokenFile  # uint16 or uint32 [tokens]
    starts: np.ndarray  # int64 [documents + 1]
    text_bytes: np.ndarray  # int64 [documents]: UTF-8 bytes of each document's text
    end_id: int


def open_corpus(
    data: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    split: str = "all",
    valid_fraction: float = 0.01,
    reading: Reading = AS_IT_IS,
    cache_dir: Path | None = None,
    progress: bool = True,
) -> Corpus:
    """The tokens of one side of the split of ``data``, tokenised only if the cache does not have them yet.

    Args:
        data, reading: as in ``read_documents``.
        tokenizer: any with an end-of-text token.
        split, valid_fraction: as in ``split_documents``.
        cache_dir: by default ``$FOVEATE_CACHE`` or ``~/.cache/foveate``.
        progress: on standard error, while tokenising.

    Raises:
        FoveateError: as ``split_documents``; a tokenizer without end-of-text token; a cache that cannot be written.
    """
    check_split(split, valid_fraction)
    end_id = tokenizer.eos_token_id
    if end_id is None:
        raise FoveateError(
            "the tokenizer has no end-of-text token to part documents with; set its eos_token, "
            "or get it through foveate.data.tokenizer.load_tokenizer, which adds one"
        )
    names = as_names(data)
    key = {
        "format": FORMAT,
        "data": fingerprint(names, reading=reading),
        "tokenizer": _tokenizer_text(tokenizer),
        "end_id": end_id,
        "reading": asdict(reading),
        "split": split if split == "all" else [split, valid_fraction],
    }
    digest = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=16).hexdigest()
    folder = (cache_dir or store.cache_folder()) / "corpus" / digest
    found = _load(folder, end_id)
    if found is None:
        with store.lock(folder):
            found = _load(folder, end_id)  # another process may have built it meanwhile
            if found is None:
                _build(folder, names, tokenizer, split, valid_fraction, reading, progress)
                found = _load(folder, end_id)
    assert found is not None
    corpus, notes = found
    for note in notes if progress else ():
        say(note)
    return corpus


def _tokenizer_text(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = document_backend(tokenizer)
    if backend is not None:
        return backend.to_str()
    return json.dumps([repr(tokenizer), tokenizer.get_vocab()], sort_keys=True)


def _load(folder: Path, end_id: int) -> tuple[Corpus, tuple[str, ...]] | None:
    stored = store.load_arrays(folder, ("tokens", "starts", "text_bytes"), opened="tokens")
    return None if stored is None else (Corpus(**stored.arrays, end_id=end_id), stored.notes)


def _build(
    folder: Path,
    data: list[str],
    tokenizer: PreTrainedTokenizerBase,
    split: str,
    valid_fraction: float,
    reading: Reading,
    progress: bool,
) -> None:
    began = time.monotonic()
    dtype = token_dtype(tokenizer)
    end = np.array([tokenizer.eos_token_id], dtype).tobytes()
    starts, text_bytes = array("q", [0]), array("q")
    # a first pass before the long one: bad input is heard of at once, and the bar knows where it ends
    survey = survey_documents(data, reading=reading, progress=progress)
    total = survey.bytes_of(split, valid_fraction)
    texts = split_documents(data, split=split, valid_fraction=valid_fraction, reading=reading, progress=progress)
    title = "tokenising" if split == "all" else f"tokenising {split} text"
    with store.replacing(folder) as new:
        with (new / "tokens").open("wb") as file, byte_progress(title, total, show=progress) as advance:
            for text, ids in encode_documents(tokenizer, texts, advance=advance):
                file.write(ids.tobytes())
                file.write(end)
                starts.append(starts[-1] + len(ids) + 1)
                text_bytes.append(len(text.encode()))
        (new / "starts").write_bytes(starts.tobytes())
        (new / "text_bytes").write_bytes(text_bytes.tobytes())
        int64 = np.dtype(np.int64)
        store.write_manifest(new, {"tokens": dtype, "starts": int64, "text_bytes": int64}, notes=survey.notes)
    if progress:
        print(
            f"{title}: {sum(text_bytes) / 1e6:.1f} MB in {len(text_bytes):,} documents are {starts[-1]:,} tokens "
            f"({time.monotonic() - began:.1f} s)",
            file=sys.stderr,
        )


class Blocks(Dataset[dict[str, torch.Tensor]]):
    """A corpus cut into blocks of ``context`` tokens for a causal language model, which shifts the labels itself.

    Item i is ``{"input_ids": int64 [context], "labels": int64 [context]}``. A block starts with the last token of the
    one before, so every token of the corpus but the first is predicted exactly once; the last block reaches back to
    be full, and its labels are -100 where the block before has predicted them.

    Raises:
        FoveateError: ``context`` is below 2, or the corpus is shorter than one block.
    """

    def __init__(self, corpus: Corpus, context: int) -> None:
        if context < 2:
            raise FoveateError(f"context is {context}; it must be at least 2, one token to read and one to predict")
        if len(corpus.tokens) < context:
            raise FoveateError(
                f"the text has {len(corpus.tokens)} tokens, fewer than one block of {context}; "
                f"give more text or a context of at most {len(corpus.tokens)}"
            )
        self.corpus = corpus
        self.context = context

    def __len__(self) -> int:
        return -(-(len(self.corpus.tokens) - 1) // (self.context - 1))

    def where(self, index: int) -> str:
        """Which part of the corpus a block is, for a person; documents, and tokens within them, count from 0."""
        starts = self.corpus.starts
        first = index * (self.context - 1)
        start, last = min(first, len(self.corpus.tokens) - self.context), first + self.context - 1
        ends = [start, min(last, len(self.corpus.tokens) - 1)]
        documents = np.searchsorted(starts, ends, side="right") - 1
        (document, end_document), (token, end_token) = documents.tolist(), (ends - starts[documents]).tolist()
        if document == end_document:
            return f"document {document} tokens {token}-{end_token}"
        return f"document {document} token {token} to document {end_document} token {end_token}"

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        first = index * (self.context - 1)
        start = min(first, len(self.corpus.tokens) - self.context)
        ids = torch.from_numpy(self.corpus.tokens[start : start + self.context].astype(np.int64))
        if start == first:
            return {"input_ids": ids, "labels": ids}
        labels = ids.clone()
        labels[: first - start + 1] = IGNORED_LABEL
        return {"input_ids": ids, "labels": labels}
