"""What a causal language model makes of tokens, in nats: the windows of a text, their batches, each token's loss.

Whatever scores text does it here: evaluation, comparisons, probes.

Legend: B rows of a batch, T tokens of a row, K of them scored, V vocabulary, N tokens of a document.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from foveate.data.prompt import document_mark
from foveate.devices import free_memory
from foveate.errors import FoveateError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORED = -100
LOGITS_PER_BATCH = 1 << 27  # half a GiB in fp32
LOGITS_PER_CHUNK = 1 << 24  # of which so many are turned into log-probabilities at a time
TOKENS_PER_BATCH = 1 << 13

# inputs [B, T] and the ids they predict [B, T], IGNORED where not scored
Windows = tuple[np.ndarray, np.ndarray]


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
    outside = [number for number in (np.min(ids), np.max(ids)) if not 0 <= number < vocabulary] if len(ids) else []
    if outside:
        raise FoveateError(
            f"{owner} has token id {outside[-1]}, the model knows {vocabulary:,} ids; is the tokenizer the model's own?"
        )


def document_windows(ids_N: np.ndarray, prefix: int, context: int) -> Iterator[Windows]:
    """One document's windows: those that follow each other as one array, then the last one moved back to be full."""
    N = len(ids_N)
    inputs_N, targets_N = shifted(ids_N, 0, prefix)
    whole = N - N % context
    if whole:
        yield inputs_N[:whole].reshape(-1, context), targets_N[:whole].reshape(-1, context)
    if whole < N:
        start = max(0, N - context)
        targets_T = targets_N[start:].copy()
        targets_T[: whole - start] = IGNORED
        yield inputs_N[None, start:], targets_T[None]


def shifted(ids_T: np.ndarray, read: int, prefix: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [T] after the mark that begins a document, and what they predict [T]; the first ``read`` are context."""
    inputs_T = np.concatenate([[prefix], ids_T[:-1]]) if len(ids_T) else ids_T
    targets_T = ids_T.astype(np.int64)
    targets_T[:read] = IGNORED
    return inputs_T, targets_T


def pad_rows(rows: Sequence[tuple[np.ndarray, np.ndarray]], prefix: int) -> Windows:
    """Inputs [T] and targets [T] of several lengths as one batch, padded on the right, where a model does not look."""
    T = max(len(inputs_T) for inputs_T, _ in rows)
    inputs_BT = np.full((len(rows), T), prefix)
    targets_BT = np.full((len(rows), T), IGNORED)
    for row, (inputs_T, targets_T) in enumerate(rows):
        inputs_BT[row, : len(inputs_T)] = inputs_T
        targets_BT[row, : len(targets_T)] = targets_T
    return inputs_BT, targets_BT


class Scorer:
    """Scores tokens of rows of text with one model; what is called must stand inside ``ready``.

    Args:
        model: called as ``model(input_ids=...)``, it returns logits, or something that has them as ``logits``.
        batch: rows computed at once; by default as many as keep the logits near half a GiB.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, *, batch: int | None = None) -> None:
        self.model = model
        self.prefix = document_mark(tokenizer)
        self.batch = batch
        parameters = model.parameters() if hasattr(model, "parameters") else ()
        self.device: torch.device = next((parameter.device for parameter in parameters), torch.device("cpu"))
        takes = inspect.signature(getattr(model, "forward", model)).parameters
        passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
        self._options: dict[str, Any] = {"use_cache": False} if "use_cache" in takes or passes_on else {}
        self._keeps_logits = "logits_to_keep" in takes
        self._config = getattr(model, "config", None)
        known = len(tokenizer) if self._config is None else self._config.get_text_config().vocab_size
        self.vocabulary: int = known

    def check(self, ids: np.ndarray, owner: str, context: int) -> None:
        """Raise a ``FoveateError`` unless the model has positions for ``context`` tokens, and knows ``ids``."""
        if self._config is not None:
            check_context(self.model, context)
            check_ids(ids.flatten(), owner, self.model)
            check_ids([self.prefix], "the mark that begins a document", self.model)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """The model in evaluation mode, nothing kept for a backward pass; afterwards in the mode it was in."""
        was_training = getattr(self.model, "training", False)
        if was_training:
            self.model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            if was_training:
                self.model.train()

    def rows(self, T: int) -> int:
        """How many rows of ``T`` tokens to compute at once."""
        return self.batch or max(1, min(TOKENS_PER_BATCH // T, LOGITS_PER_BATCH // (T * self.vocabulary)))

    def nats(self, inputs_BT: np.ndarray, targets_BT: np.ndarray) -> np.ndarray:
        """Of each target that is not ignored, row by row, the negative log-likelihood in nats: float64 [scored].

        Raises:
            FoveateError: the logits alone are more than there is memory.
        """
        B, T = inputs_BT.shape
        scored_BT = targets_BT != IGNORED
        K = T - int(scored_BT.any(0).argmax()) if scored_BT.any() else 1  # columns from the first scored one on
        self._check_memory(B, K if self._keeps_logits else T)
        keep = {"logits_to_keep": K} if self._keeps_logits else {}
        output = self.model(input_ids=torch.from_numpy(inputs_BT).to(self.device), **self._options, **keep)
        logits: Tensor = getattr(output, "logits", output)[:, -K:].flatten(0, 1)
        targets = torch.from_numpy(targets_BT[:, -K:]).to(self.device).flatten()
        scored = (targets != IGNORED).nonzero()[:, 0]
        losses = [
            cross_entropy(logits[chunk].float(), targets[chunk], reduction="none").cpu().double()
            for chunk in scored.split(max(1, LOGITS_PER_CHUNK // logits.shape[1]))
        ]
        return torch.cat(losses).numpy()

    def last(self, ids_BT: np.ndarray, K: int) -> np.ndarray:
        """Nats of the last ``K`` tokens of each of any number of rows, given all before: float32 [B, K]."""
        T = ids_BT.shape[1]
        losses = [
            self.nats(*pad_rows([shifted(ids_T, T - K, self.prefix) for ids_T in some_BT], self.prefix))
            for some_BT in np.array_split(ids_BT, -(-len(ids_BT) // self.rows(T)))
        ]
        return np.concatenate(losses).reshape(-1, K).astype(np.float32)

    def _check_memory(self, rows: int, columns: int) -> None:
        needed, free = rows * columns * self.vocabulary * 4, free_memory(self.device)
        if needed > free:
            raise FoveateError(
                f"scoring {rows:,} windows at once would take over {needed / 2**30:,.1f} GiB of memory, of which "
                f"{free / 2**30:,.1f} GiB are free; choose a smaller --batch, or leave it out"
            )
