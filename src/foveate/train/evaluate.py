"""Bits per byte of text under any causal language model, over exactly the windows of lm-eval's rolling log-likelihood.

Legend: B windows of a batch, T tokens of a window, V vocabulary, N tokens of a document.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from foveate.errors import FoveateError
from foveate.progress import token_progress
from foveate.train.distributed import World
from foveate.train.documents import Document, as_documents, cut
from foveate.train.memory import check_scoring_memory
from foveate.train.shares import share_windows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORED = -100
LOGITS_PER_BATCH = 1 << 27  # half a GiB in fp32
LOGITS_PER_CHUNK = 1 << 24  # of which so many are turned into log-probabilities at a time
TOKENS_PER_BATCH = 1 << 13


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


# inputs [B, T] and the ids they predict [B, T], IGNORED where not scored
Windows = tuple[np.ndarray, np.ndarray]


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    documents: Iterable[str] | Iterable[Document],
    *,
    context: int,
    batch: int | None = None,
    max_tokens: int | None = None,
    autocast: bool = False,
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
        progress: show it on standard error; or a function called with each number of tokens scored.
        world: the processes that share the windows; each is given the documents, and gets the result of all.

    Raises:
        FoveateError: context out of range, a token id outside the vocabulary, too large a batch, or nothing to score.
    """
    world = world or World()
    check_context(model, context)
    vocabulary: int = model.config.get_text_config().vocab_size
    rows = batch or max(1, min(TOKENS_PER_BATCH // context, LOGITS_PER_BATCH // (context * vocabulary)))
    tokens = text_bytes = 0

    def scored_ids() -> Iterator[np.ndarray]:
        nonlocal tokens, text_bytes
        for number, document in enumerate(as_documents(tokenizer, documents), 1):
            if max_tokens is not None:
                windows_left = -(-(max_tokens - tokens) // context)
                document = cut(document, windows_left * context, tokenizer)
            check_ids(document.ids, f"document {number}", model)
            tokens += len(document.ids)
            text_bytes += document.text_bytes
            yield document.ids
            if max_tokens is not None and tokens >= max_tokens:
                return

    prefix = prefix_id(tokenizer)
    check_ids([prefix], "the mark that begins a document", model)
    nats = 0.0
    was_training = model.training
    model.eval()
    if callable(progress):
        shown: Any = contextlib.nullcontext(progress)
    else:
        shown = token_progress("scoring", max_tokens, show=progress)
    precision = torch.autocast(model.device.type, torch.bfloat16) if autocast else contextlib.nullcontext()
    try:
        with torch.inference_mode(), precision, shown as advance:
            windows = batches(scored_ids(), prefix, context, rows)
            for inputs_BT, targets_BT, scored in share_windows(windows, world, IGNORED):
                check_scoring_memory(len(inputs_BT), inputs_BT.shape[1], vocabulary, model.device)
                nats += nll(model, inputs_BT, targets_BT)
                advance(scored)
    finally:
        model.train(was_training)
    if not tokens or not text_bytes:
        raise FoveateError("there is no text to score: the data holds only empty documents")
    nats = world.sum(nats)
    per_token = nats / tokens
    return Evaluation(
        bpb=nats / math.log(2) / text_bytes,
        perplexity=math.exp(min(per_token, 700.0)),
        nll_per_token=per_token,
        tokens=tokens,
        bytes=text_bytes,
        context=context,
    )


def position_limit(model: PreTrainedModel) -> int | None:
    """The longest sequence the model has positions for; None for what reads any length."""
    spec = getattr(model.config, "spec", None)
    if spec is not None and spec.reads_any_length:
        return None
    return getattr(model.config, "max_position_embeddings", None)


def check_context(model: PreTrainedModel, context: int) -> None:
    """Raise a ``FoveateError`` unless the model has positions for ``context`` tokens."""
    limit = position_limit(model)
    if context < 1 or (limit is not None and context > limit):
        raise FoveateError(
            f"--context: {context} must be from 1 to {limit or 'what memory allows'}, the model's positions"
        )


def check_ids(ids: Sequence[int] | np.ndarray, owner: str, model: PreTrainedModel) -> None:
    """Raise a ``FoveateError`` unless the model knows every one of ``ids``."""
    vocabulary = model.config.get_text_config().vocab_size
    if len(ids) and not 0 <= np.min(ids) <= np.max(ids) < vocabulary:
        raise FoveateError(
            f"{owner} has token id {np.max(ids)}, the model knows {vocabulary:,} ids; is the tokenizer the model's own?"
        )


def prefix_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id a document begins after: beginning-of-text if the tokenizer has it, else end-of-text, as in lm-eval."""
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return token_id
    raise FoveateError(
        "the tokenizer has neither a beginning-of-text nor an end-of-text token to start a document with"
    )


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


def document_windows(ids_N: np.ndarray, prefix: int, context: int) -> Iterator[Windows]:
    """One document's windows: those that follow each other as one array, then the last one moved back to be full."""
    N = len(ids_N)
    shifted_N = np.concatenate([[prefix], ids_N[:-1]]) if N else ids_N
    whole = N - N % context
    if whole:
        yield shifted_N[:whole].reshape(-1, context), ids_N[:whole].reshape(-1, context)
    if whole < N:
        start = max(0, N - context)
        targets_T = ids_N[start:].copy()
        targets_T[: whole - start] = IGNORED
        yield shifted_N[None, start:], targets_T[None]


def _pad(short: list[Windows], prefix: int, rows: int) -> Iterator[Windows]:
    short = sorted(short, key=lambda windows: windows[0].shape[1])
    for start in range(0, len(short), rows):
        group = short[start : start + rows]
        T = group[-1][0].shape[1]
        inputs_BT = np.full((len(group), T), prefix)
        targets_BT = np.full((len(group), T), IGNORED)
        for row, (inputs, targets) in enumerate(group):
            inputs_BT[row, : inputs.shape[1]] = inputs[0]
            targets_BT[row, : targets.shape[1]] = targets[0]
        yield inputs_BT, targets_BT


def nll(model: PreTrainedModel, inputs_BT: np.ndarray, targets_BT: np.ndarray) -> float:
    """Negative log-likelihood in nats of the targets that are not ignored, summed in double precision."""
    return float(token_nll(model, inputs_BT, targets_BT).sum())


def token_nll(model: PreTrainedModel, inputs_BT: np.ndarray, targets_BT: np.ndarray) -> np.ndarray:
    """Of each target that is not ignored, row by row, the negative log-likelihood in nats: float64 [scored]."""
    logits_BTV: Tensor = model(input_ids=torch.from_numpy(inputs_BT).to(model.device), use_cache=False).logits
    logits = logits_BTV.flatten(0, 1)
    targets = torch.from_numpy(targets_BT).to(model.device).flatten()
    scored = (targets != IGNORED).nonzero()[:, 0]
    losses = [
        cross_entropy(logits[chunk].float(), targets[chunk], reduction="none").cpu().double()
        for chunk in scored.split(max(1, LOGITS_PER_CHUNK // logits.shape[1]))
    ]
    return torch.cat(losses).numpy()
