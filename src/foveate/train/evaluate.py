"""Bits per byte of text under any causal language model, over exactly the windows of lm-eval's rolling log-likelihood.

Legend: B windows of a batch, T tokens of a window, V vocabulary, N tokens of a document.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from foveate.errors import FoveateError
from foveate.progress import token_progress
from foveate.scoring import IGNORED, Scorer, Windows, check_context, check_ids, document_windows, pad_rows
from foveate.train.distributed import World
from foveate.train.documents import Document, as_documents, cut
from foveate.train.shares import share_windows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a model predicts a text.

    ``bpb`` is the negative log-likelihood in bits over the UTF-8 bytes of the text, so that models with different
    tokenizers compare; ``nll_per_token`` is in nats, ``perplexity`` its exponential. End-of-text marks are not scored.
    """

    bpb: float
    perplexity: float
    nll_per_token: float
    tokens: int
    bytes: int
    context: int

    @classmethod
    def of(cls, nats: float, *, tokens: int, text_bytes: int, context: int) -> Evaluation:
        per_token = nats / tokens
        return cls(
            bpb=nats / math.log(2) / text_bytes,
            perplexity=math.exp(min(per_token, 700.0)),
            nll_per_token=per_token,
            tokens=tokens,
            bytes=text_bytes,
            context=context,
        )


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    documents: Iterable[str] | Iterable[Document],
    *,
    context: int,
    batch: int | None = None,
    max_tokens: int | None = None,
    autocast: bool = False,
    special_tokens: bool = False,
    progress: bool | Callable[[int], Any] = True,
    world: World | None = None,
) -> Evaluation:
    """Score documents, each by itself: windows of ``context`` tokens, the first one after an end-of-text mark.

    As in lm-eval, the windows of a document follow each other without overlap; its last one is moved back to be full
    and scores only what is left. A document's first token is predicted from the mark alone.

    Args:
        documents: texts, or documents already tokenised.
        batch: windows computed at once; by default as many as keep the logits near half a GiB.
        max_tokens: stop at the first window that reaches so many. The last document is then scored in part, and the
            bytes counted for it are those that its scored tokens decode to.
        autocast: compute in bf16, quicker and less exact; otherwise in the model's own precision.
        special_tokens: let control tokens that texts spell out be tokens; otherwise they are text.
        progress: show it on standard error; or a function called with each number of tokens scored.
        world: the processes that share the windows; each is given the documents, and gets the result of all.

    Raises:
        FoveateError: context out of range, a token id outside the vocabulary, too large a batch, or nothing to score.
    """
    world = world or World()
    check_context(model, context)
    scorer = Scorer(model, tokenizer, batch=batch)
    check_ids([scorer.prefix], "the mark that begins a document", model)
    tokens = text_bytes = 0

    def scored_ids() -> Iterator[np.ndarray]:
        nonlocal tokens, text_bytes
        for number, document in enumerate(as_documents(tokenizer, documents, special_tokens), 1):
            if max_tokens is not None:
                windows_left = -(-(max_tokens - tokens) // context)
                document = cut(document, windows_left * context, tokenizer)
            check_ids(document.ids, f"document {number}", model)
            tokens += len(document.ids)
            text_bytes += document.text_bytes
            yield document.ids
            if max_tokens is not None and tokens >= max_tokens:
                return

    nats = 0.0
    if callable(progress):
        shown: Any = contextlib.nullcontext(progress)
    else:
        shown = token_progress("scoring", max_tokens, show=progress)
    precision = torch.autocast(scorer.device.type, torch.bfloat16) if autocast else contextlib.nullcontext()
    with scorer.ready(), precision, shown as advance:
        windows = batches(scored_ids(), scorer.prefix, context, scorer.rows(context))
        for inputs_BT, targets_BT, scored in share_windows(windows, world, IGNORED):
            nats += float(scorer.nats(inputs_BT, targets_BT).sum())
            advance(scored)
    if not tokens or not text_bytes:
        raise FoveateError("there is no text to score: the data holds only empty documents")
    total = world.sum(nats)
    if not math.isfinite(total):
        raise FoveateError(
            "the model's losses are no finite numbers: its weights are damaged, or too large for its dtype"
        )
    return Evaluation.of(total, tokens=tokens, text_bytes=text_bytes, context=context)


def batches(documents: Iterable[np.ndarray], prefix: int, context: int, rows: int) -> Iterator[Windows]:
    """The windows of all documents, ``rows`` at a time, each batch of one length.

    Documents shorter than the context are padded to the longest of their batch on the right, where a causal model
    does not look.
    """
    full: list[Windows] = []
    short: list[Windows] = []
    for ids_N in documents:
        for windows in document_windows(ids_N, prefix, context):
            (full if windows[0].shape[1] == context else short).append(windows)
        waiting = sum(len(inputs) for inputs, _ in full)
        if waiting >= rows:
            inputs, targets = (np.concatenate(parts) for parts in zip(*full, strict=True))
            whole = waiting - waiting % rows
            for start in range(0, whole, rows):
                yield inputs[start : start + rows], targets[start : start + rows]
            full = [(inputs[whole:], targets[whole:])]
        if len(short) >= 16 * rows:  # enough of them that neighbours by length need little padding
            yield from _pad(short, prefix, rows)
            short = []
    if sum(len(inputs) for inputs, _ in full):
        inputs, targets = (np.concatenate(parts) for parts in zip(*full, strict=True))
        yield inputs, targets
    yield from _pad(short, prefix, rows)


def _pad(short: list[Windows], prefix: int, rows: int) -> Iterator[Windows]:
    short = sorted(short, key=lambda windows: windows[0].shape[1])
    for start in range(0, len(short), rows):
        yield pad_rows([(inputs[0], targets[0]) for inputs, targets in short[start : start + rows]], prefix)
