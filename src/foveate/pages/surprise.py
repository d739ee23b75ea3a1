"""Surprise: the loss of each token of a text under one model, and the difference of two, item by item.

The windows are those of ``foveate eval``, so the sums are its numbers.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from foveate.pages.fields import Fields
from foveate.pages.shelf import Reader, Shelf
from foveate.pages.texts import Encoded, encode
from foveate.pages.work import Job, Work
from foveate.scoring import Scorer, document_windows
from foveate.train.evaluate import Evaluation

MOST_TOKENS = 20_000
WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"""(?:[.!?…]["'”’)\]]*\s*|\n\s*|^\s*["'“‘(]*)$""")


def surprise(shelf: Shelf, fields: Fields) -> Work:
    """What a request asks for: ``models``, one or two; differences are those of the first less the second."""
    names, text = fields.names("models", 1, 2), fields.text("text")
    fields.end()

    def work(job: Job) -> dict[str, Any]:
        found = []
        for number, name in enumerate(names):
            reader = shelf.reader(name)
            encoded = encode(reader, text, MOST_TOKENS)
            nats = token_nats(reader, encoded, job, number / len(names), 1 / len(names))
            found.append((reader, encoded, nats))
        scored = [_scored(*each) for each in found]
        items = _items(text, [(encoded, nats) for _, encoded, nats in found])
        return {"models": scored, "items": items, "kinds": _by_kind(text, items) if len(found) == 2 else []}

    return work


def token_nats(reader: Reader, encoded: Encoded, job: Job, begin: float = 0.0, share: float = 1.0) -> np.ndarray:
    """The loss of every token, in windows of the reader's context: float64 [tokens]."""
    scorer = Scorer(reader.model, reader.tokenizer)
    losses, done = [], 0
    with scorer.ready():
        for inputs_WT, targets_WT in document_windows(encoded.ids, scorer.prefix, reader.context):
            rows = scorer.rows(inputs_WT.shape[1])
            for first in range(0, len(inputs_WT), min(rows, 4)):
                some = slice(first, first + min(rows, 4))
                losses.append(scorer.nats(inputs_WT[some], targets_WT[some]))
                done += len(losses[-1])
                job.tell(progress=round(begin + share * done / len(encoded), 3))
    return np.concatenate(losses)


def _scored(reader: Reader, encoded: Encoded, nats: np.ndarray) -> dict[str, Any]:
    size = len(encoded.text.encode())
    total = Evaluation.of(float(nats.sum()), tokens=len(nats), text_bytes=size, context=reader.context)
    return {
        "name": reader.name,
        "bpb": total.bpb,
        "nll_per_token": total.nll_per_token,
        "tokens": total.tokens,
        "bytes": size,
        "context": reader.context,
    }


def _items(text: str, found: list[tuple[Encoded, np.ndarray]]) -> list[dict[str, Any]]:
    """The shortest pieces of the text that no token of any model reaches across, with each model's nats."""
    ends = found[0][0].ends
    for encoded, _ in found:
        # where the next token begins at or after an end, no token reaches across it
        nexts = np.append(np.minimum.accumulate(encoded.starts[::-1])[::-1], len(text))
        place = np.searchsorted(encoded.ends, ends, "right")
        ends = ends[np.isin(ends, encoded.ends) & (nexts[place] >= ends)]
    ends = np.unique(ends)
    columns = []
    for encoded, nats in found:
        total = np.concatenate([[0.0], nats.cumsum()])
        columns.append(np.diff(total[np.searchsorted(encoded.ends, ends, "right")], prepend=0.0))
    begins = [0, *ends[:-1].tolist()]
    return [
        {"text": text[begin:end], "nats": [round(float(value), 6) for value in values]}
        for begin, end, *values in zip(begins, ends.tolist(), *columns, strict=True)
    ]


def _by_kind(text: str, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where one model does better: the mean difference of the items of some kinds."""
    seen: set[str] = set()
    sums: dict[str, list[float]] = {}
    at = 0
    for item in items:
        word = WORD.search(item["text"])
        begins = SENTENCE_END.search(text[max(0, at - 8) : at]) is not None
        kinds = ["first_of_sentence"] if begins and word else []
        if word is None:
            kinds.append("between_words")
        else:
            folded = word[0].lower()
            kinds.append("seen_before" if folded in seen else "new_word")
            seen.add(folded)
            if word[0][0].isupper() and not begins:
                kinds.append("name")
            if word[0].isdigit():
                kinds.append("number")
        for kind in kinds:
            sums.setdefault(kind, []).append(item["nats"][0] - item["nats"][1])
        at += len(item["text"])
    return [{"kind": kind, "items": len(all_), "mean": float(np.mean(all_))} for kind, all_ in sorted(sums.items())]
