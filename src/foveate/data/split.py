"""Training and validation text: a split that depends on what documents say, never on their order or place.

Of 20 documents or more, whole ones are held out, those with the smallest hashes of their text; of fewer, the end of
each. So equal documents are always on the same side, and the two sides never share text and lose none.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from foveate.data.documents import as_names, fingerprint, read_documents
from foveate.data.reading import AS_IT_IS, Reading
from foveate.errors import FoveateError
from foveate.progress import byte_progress

SPLITS = ("all", "train", "valid")
WHOLE_DOCUMENTS_FROM = 20


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a first pass over the documents learns of them."""

    hashes: np.ndarray  # uint64 [documents]
    text_bytes: np.ndarray  # int64 [documents]
    notes: tuple[str, ...] = ()  # what the user is to hear: files left out, line ends of another system

    def threshold(self, valid_fraction: float) -> int | None:
        """The largest hash of a validation document; None where every document gives its end instead."""
        count = len(self.hashes)
        if count < WHOLE_DOCUMENTS_FROM:
            return None
        held_out = min(max(1, round(count * valid_fraction)), count - 1)
        return int(np.partition(self.hashes, held_out - 1)[held_out - 1])

    def bytes_of(self, split: str, valid_fraction: float) -> int:
        """How much text a split has, to within where lines end."""
        total = int(self.text_bytes.sum())
        threshold = self.threshold(valid_fraction)
        if threshold is None:
            valid = round(total * valid_fraction)
        else:
            valid = int(self.text_bytes[self.hashes <= threshold].sum())
        return {"all": total, "train": total - valid, "valid": valid}[split]


def survey_documents(data: Sequence[str], *, reading: Reading = AS_IT_IS, progress: bool = False) -> Survey:
    """Read every document once, to count and hash it; remembered while the contents stay as they are."""
    return _survey(tuple(as_names(data)), reading, fingerprint(data, reading=reading), progress)


@lru_cache(maxsize=4)
def _survey(data: tuple[str, ...], reading: Reading, contents: str, progress: bool) -> Survey:
    hashes, sizes = array("Q"), array("q")
    notes: list[str] = []
    other_ends = 0
    with byte_progress("reading", None, show=progress) as advance:
        for text in read_documents(data, reading=reading, note=notes.append):
            raw = text.encode()
            hashes.append(text_hash(raw))
            sizes.append(len(raw))
            other_ends += b"\r\n" in raw
            advance(len(raw))
    if other_ends:
        notes.append(
            f"the Windows line ends (\\r\\n) in {other_ends:,} of {len(sizes):,} documents are kept as they are; "
            f"--newlines unix makes them \\n"
        )
    return Survey(hashes=np.array(hashes, np.uint64), text_bytes=np.array(sizes, np.int64), notes=tuple(notes))


def text_hash(raw: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def check_split(split: str, valid_fraction: float) -> None:
    if split not in SPLITS:
        raise FoveateError(f"split is {split!r}; choose one of {', '.join(SPLITS)}")
    if not 0 < valid_fraction < 1:
        raise FoveateError(f"valid_fraction is {valid_fraction!r}; it must lie between 0 and 1, for example 0.01")


def split_documents(
    data: Sequence[str],
    *,
    split: str = "all",
    valid_fraction: float = 0.01,
    reading: Reading = AS_IT_IS,
    progress: bool = False,
) -> Iterator[str]:
    """The documents of one side of the split, or ``all`` of them; ``data`` and ``reading`` as in ``read_documents``.

    Args:
        split: ``train``, ``valid`` or ``all``.
        valid_fraction: the part of the documents (of fewer than 20: of each document's text) that is held out.
        progress: show the pass that finds the split, on standard error.

    Raises:
        FoveateError: as ``read_documents``, and where this side of the split is empty.
    """
    check_split(split, valid_fraction)
    documents = read_documents(data, reading=reading, note=lambda line: None)  # the survey has told of it
    if split == "all":
        return documents
    threshold = survey_documents(data, reading=reading, progress=progress).threshold(valid_fraction)
    return _one_side(documents, split, valid_fraction, threshold)


def _one_side(documents: Iterator[str], split: str, valid_fraction: float, threshold: int | None) -> Iterator[str]:
    seen, given = 0, 0
    for text in documents:
        seen += 1
        if threshold is not None:
            part = text if (text_hash(text.encode()) <= threshold) == (split == "valid") else ""
        else:
            at = _tail_start(text, valid_fraction)
            part = text[at:] if split == "valid" else text[:at]
        if part:
            given += 1
            yield part
    if not given:
        raise FoveateError(
            f"the {split} split is empty: {seen} document{'s'[: seen != 1]}, too short or too much alike to share out "
            f"(valid_fraction {valid_fraction}); give more text, or validation text of its own"
        )


def _tail_start(text: str, valid_fraction: float) -> int:
    """Where the held-out end begins: at a line, unless that makes the end half or one and a half times as long."""
    if len(text) < 2:
        return len(text)
    tail = min(max(1, round(len(text) * valid_fraction)), len(text) - 1)
    at = len(text) - tail
    low, high = max(1, at - tail // 2), at + tail // 2
    after = text.find("\n", at - 1, high)
    if after >= 0:
        return after + 1
    before = text.rfind("\n", low - 1, at)
    return before + 1 if before >= 0 else at
