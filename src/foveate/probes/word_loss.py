"""The loss of every word of a text under several models, which may have different tokenizers.

The models read the same windows of text, each after one mark that begins a document, and are scored on the same items.

Legend: M models, I items of all texts, B windows of a batch, T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from foveate.errors import FoveateError
from foveate.probes.items import Items, Tokens, Window, find_tokens, shared_items, windows
from foveate.probes.words import fold, segment
from foveate.progress import token_progress
from foveate.scoring import Scorer, check_ids, pad_rows, position_limit, shifted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BETWEEN_WORDS, SEVERAL_WORDS = -1, -2  # instead of a word's number
NOT_SEEN = 0  # instead of a distance
LONGEST_WINDOW = 1024  # unless asked for


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A model with its tokenizer, and what to call it."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class WordLosses:
    """What several models made of the items of some texts: nearly always, of each word and of what is between words."""

    texts: Sequence[str]
    vocabulary: Sequence[str]  # folded
    context: int
    nats: np.ndarray  # float64 [M, I]
    word: np.ndarray  # int64 [I]: its place in the vocabulary, or BETWEEN_WORDS or SEVERAL_WORDS
    distance: np.ndarray  # int64 [I]: how many words back it occurred in the window, or NOT_SEEN
    text: np.ndarray  # int64 [I]
    window: np.ndarray  # int64 [I], counted through all texts
    start: np.ndarray  # int64 [I]: where its word begins in the text, in characters; else where the item does
    end: np.ndarray  # int64 [I], characters
    bytes: np.ndarray  # int64 [I], UTF-8
    left_out: int  # items longer than a window


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A text ready to be scored; ``columns`` are what ``WordLosses`` tells of the items but their losses."""

    tokenized: tuple[Tokens, ...]
    items: Items
    windows: tuple[Window, ...]
    scored: np.ndarray  # int64: the items in some window, all but the longest
    columns: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A window as one model reads it: of ``ids`` the first ``read`` are context, the losses of the others wanted."""

    ids: np.ndarray
    read: int
    losses: np.ndarray  # to be filled


def word_losses(
    readers: Sequence[Reader],
    texts: Sequence[str],
    *,
    context: int | None = None,
    batch: int | None = None,
    progress: bool = True,
) -> WordLosses:
    """Let every model read every text.

    Args:
        context: tokens of a window at most, counted with the tokenizer that makes most of its text; by default 1024,
            or what the models have positions for.
        batch: windows computed at once; by default as many as keep the logits near half a GiB.
        progress: show it on standard error.

    Raises:
        FoveateError: context out of range, a token id outside a model's vocabulary, a tokenizer that does not know
            where its tokens stand, or no text.
    """
    context = _check_context(readers, context)
    numbers: dict[str, int] = {}
    finders = [find_tokens(reader.tokenizer) for reader in readers]
    prepared = []
    for number, text in enumerate(texts):
        tokenized = tuple(find(text) for find in finders)
        for reader, tokens in zip(readers, tokenized, strict=True):
            check_ids(tokens.ids, f"{reader.name}: document {number + 1}", reader.model)
        prepared.append(_prepare(text, number, tokenized, context, numbers))
    if not any(text.windows for text in prepared):
        raise FoveateError(f"there is no text to score: the data holds no word that fits into {context:,} tokens")
    nats = [_item_nats(model, reader, prepared, context, batch, progress) for model, reader in enumerate(readers)]
    columns = {name: np.concatenate([text.columns[name] for text in prepared]) for name in prepared[0].columns}
    windows_before = np.cumsum([0, *(len(text.windows) for text in prepared)])
    columns["window"] += windows_before[columns["text"]]
    return WordLosses(
        texts=tuple(texts),
        vocabulary=tuple(numbers),
        context=context,
        nats=np.stack(nats),
        left_out=sum(len(text.items.ends) for text in prepared) - len(columns["text"]),
        **columns,
    )


def _check_context(readers: Sequence[Reader], context: int | None) -> int:
    limits = {reader.name: position_limit(reader.model) for reader in readers}
    if context is None:
        trained = [getattr(reader.model.config, "max_position_embeddings", None) for reader in readers]
        return min([LONGEST_WINDOW, *(length for length in (*trained, *limits.values()) if length is not None)])
    for name, limit in limits.items():
        if limit is not None and context > limit:
            raise FoveateError(f"--context: {context:,} is more than the {limit:,} positions of {name}")
    if context < 2:
        raise FoveateError(f"--context: {context} must be at least 2 tokens, or no word has anything before it")
    return context


def _prepare(text: str, number: int, tokenized: tuple[Tokens, ...], context: int, numbers: dict[str, int]) -> _Prepared:
    """Text ``number``; words that are new go into ``numbers``, the place of each in the vocabulary."""
    segments = segment(text)
    items = shared_items(segments, tokenized)
    cuts = tuple(windows(items, context))

    has_word = segments.words >= 0
    spans = zip(segments.words[has_word], segments.ends[has_word], strict=True)
    words = np.array([numbers.setdefault(fold(text[start:end]), len(numbers)) for start, end in spans], np.int64)
    words_before = np.concatenate([[0], np.cumsum(has_word)])  # at each segment's beginning, and at the end
    first_word = words_before[_befores(items.segments)]  # of each item
    words_in = words_before[items.segments] - first_word

    scored = np.concatenate([np.arange(cut.scored, cut.end) for cut in cuts]) if cuts else np.empty(0, np.int64)
    window = np.repeat(np.arange(len(cuts)), [cut.end - cut.scored for cut in cuts])
    window_begins = np.array([first_word[cut.start] for cut in cuts], np.int64)
    one = words_in[scored] == 1
    its_word = first_word[scored[one]]
    previous = _previous(words)[its_word]

    word = np.where(words_in[scored] == 0, BETWEEN_WORDS, SEVERAL_WORDS)
    word[one] = words[its_word]
    distance = np.full(len(scored), NOT_SEEN)
    distance[one] = np.where(previous >= window_begins[window[one]], its_word - previous, NOT_SEEN)
    start = _befores(items.ends)[scored]
    end = items.ends[scored]
    byte_at = _byte_offsets(text)
    columns = {"word": word, "distance": distance, "text": np.full(len(scored), number), "window": window}
    columns["bytes"] = byte_at[end] - byte_at[start]
    columns["start"], columns["end"] = start.copy(), end.copy()
    columns["start"][one] = segments.words[has_word][its_word]
    columns["end"][one] = segments.ends[has_word][its_word]
    return _Prepared(tokenized=tokenized, items=items, windows=cuts, scored=scored, columns=columns)


def _befores(ends: np.ndarray) -> np.ndarray:
    """Where each of several things that follow each other begins."""
    return np.concatenate([[0], ends[:-1]]) if len(ends) else ends


def _previous(words: np.ndarray) -> np.ndarray:
    """Of each word the place where it occurred last, -1 where it had not."""
    order = np.argsort(words, kind="stable")
    previous = np.full(len(words), -1)
    again = words[order[1:]] == words[order[:-1]]
    previous[order[1:][again]] = order[:-1][again]
    return previous


def _byte_offsets(text: str) -> np.ndarray:
    """How many UTF-8 bytes stand before each character, and before the end."""
    code = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    size = 1 + (code >= 0x80).astype(np.int64) + (code >= 0x800) + (code >= 0x10000)
    return np.concatenate([[0], np.cumsum(size)])


def _item_nats(
    model: int, reader: Reader, prepared: Sequence[_Prepared], context: int, batch: int | None, progress: bool
) -> np.ndarray:
    """The loss of every scored item under one model, in nats: float64 [I]."""
    scorer = Scorer(reader.model, reader.tokenizer, batch=batch)
    check_ids([scorer.prefix], f"{reader.name}: the mark that begins a document", reader.model)
    losses = [np.zeros(len(text.tokenized[model].ids)) for text in prepared]
    jobs = []
    for text, losses_N in zip(prepared, losses, strict=True):
        before = np.concatenate([[0], text.items.tokens[model]])
        for cut in text.windows:
            start, scored, end = before[[cut.start, cut.scored, cut.end]]
            if scored < end:
                ids = text.tokenized[model].ids[start:end]
                jobs.append(_Job(ids=ids, read=scored - start, losses=losses_N[scored:end]))
    _score(reader.name, scorer, jobs, scorer.rows(context), progress)
    nats = []
    for text, losses_N in zip(prepared, losses, strict=True):
        total = np.concatenate([[0.0], np.cumsum(losses_N)])
        ends = text.items.tokens[model]
        nats.append((total[ends] - total[_befores(ends)])[text.scored])
    return np.concatenate(nats)


def _score(name: str, scorer: Scorer, jobs: list[_Job], rows: int, progress: bool) -> None:
    jobs = sorted(jobs, key=lambda job: -len(job.ids))  # the longest first: what does not fit is heard of at once
    shown = token_progress(f"{name}: reading", sum(len(job.ids) for job in jobs), show=progress)
    with scorer.ready(), shown as advance:
        for first in range(0, len(jobs), rows):
            some = jobs[first : first + rows]
            found = scorer.nats(*pad_rows([shifted(job.ids, job.read, scorer.prefix) for job in some], scorer.prefix))
            for job in some:
                job.losses[:], found = np.split(found, [len(job.losses)])
            advance(sum(len(job.ids) for job in some))
