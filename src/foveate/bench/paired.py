"""Two models on the same text, piece by piece, so that the difference between them comes with its uncertainty.

Legend: B windows of a batch, T tokens of a window, V vocabulary, W windows, D documents, U units resampled.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from foveate.data.encode import encode_documents
from foveate.errors import FoveateError
from foveate.train.evaluate import (
    IGNORED,
    LOGITS_PER_BATCH,
    LOGITS_PER_CHUNK,
    TOKENS_PER_BATCH,
    Evaluation,
    check_context,
    check_ids,
    document_windows,
    prefix_id,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ENOUGH_DOCUMENTS = 30  # to resample whole documents; of fewer, their windows
FEWEST_UNITS = 5
RESAMPLES = 10_000
RESAMPLED_AT_ONCE = 1 << 22  # counts


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a model made of each window of a text, the windows being those of ``foveate.train.evaluate``."""

    context: int
    nats: np.ndarray  # float64 [W]
    tokens: np.ndarray  # int64 [W], those scored
    document: np.ndarray  # int64 [W]: which one a window is of
    text_bytes: np.ndarray  # int64 [D]
    ids_digest: str  # equal for two models whose windows are the same tokens

    @property
    def evaluation(self) -> Evaluation:
        nats, tokens, text_bytes = self.nats.sum(), int(self.tokens.sum()), int(self.text_bytes.sum())
        return Evaluation(
            bpb=nats / math.log(2) / text_bytes,
            perplexity=math.exp(min(nats / tokens, 700.0)),
            nll_per_token=nats / tokens,
            tokens=tokens,
            bytes=text_bytes,
            context=self.context,
        )


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    context: int,
    advance: Callable[[int], Any] = lambda tokens: None,
) -> Scores:
    """Score every window of ``texts``; the total is what ``foveate.train.evaluate.evaluate`` gives.

    Args:
        advance: called with each number of tokens scored.

    Raises:
        FoveateError: context out of range, a token id outside the vocabulary, or nothing to score.
    """
    check_context(model, context)
    prefix = prefix_id(tokenizer)
    windows: list[tuple[np.ndarray, np.ndarray]] = []  # inputs [T] and targets [T]
    document_of: list[int] = []
    digest = hashlib.blake2b()
    for document, (_, ids) in enumerate(encode_documents(tokenizer, texts)):
        check_ids(ids, f"document {document + 1}", model)
        ids_N = ids.astype(np.int64)
        digest.update(ids_N.tobytes() + b"|")
        for inputs_BT, targets_BT in document_windows(ids_N, prefix, context):
            windows += zip(inputs_BT, targets_BT, strict=True)
            document_of += [document] * len(inputs_BT)
    if not windows:
        raise FoveateError("there is no text to score: the data holds only empty documents")
    vocabulary: int = model.config.get_text_config().vocab_size
    rows = max(1, min(TOKENS_PER_BATCH // context, LOGITS_PER_BATCH // (context * vocabulary)))
    tokens_W = np.array([(targets_T != IGNORED).sum() for _, targets_T in windows])
    nats_W = np.empty(len(windows))
    by_length = np.argsort([-len(inputs_T) for inputs_T, _ in windows], kind="stable")
    with torch.inference_mode():
        for start in range(0, len(windows), rows):
            batch = by_length[start : start + rows]
            nats_W[batch] = _nats(model, *_pad([windows[w] for w in batch], prefix))
            advance(int(tokens_W[batch].sum()))
    return Scores(
        context=context,
        nats=nats_W,
        tokens=tokens_W,
        document=np.array(document_of),
        text_bytes=np.array([len(text.encode()) for text in texts]),
        ids_digest=digest.hexdigest(),
    )


def _pad(windows: list[tuple[np.ndarray, np.ndarray]], prefix: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows as one batch, padded on the right, where a causal model does not look."""
    T = max(len(inputs_T) for inputs_T, _ in windows)
    inputs_BT = np.full((len(windows), T), prefix)
    targets_BT = np.full((len(windows), T), IGNORED)
    for row, (inputs_T, targets_T) in enumerate(windows):
        inputs_BT[row, : len(inputs_T)] = inputs_T
        targets_BT[row, : len(targets_T)] = targets_T
    return inputs_BT, targets_BT


def _nats(model: PreTrainedModel, inputs_BT: np.ndarray, targets_BT: np.ndarray) -> list[float]:
    """Of each window the negative log-likelihood in nats, summed in double precision."""
    logits_BTV = model(input_ids=torch.from_numpy(inputs_BT).to(model.device), use_cache=False).logits
    targets = torch.from_numpy(targets_BT).to(model.device)
    chunk = max(1, LOGITS_PER_CHUNK // logits_BTV.shape[2])
    nats = []
    for logits_TV, targets_T in zip(logits_BTV, targets, strict=True):
        losses = [
            cross_entropy(some_logits.float(), some, reduction="none", ignore_index=IGNORED).cpu().double().sum()
            for some_logits, some in zip(logits_TV.split(chunk), targets_T.split(chunk), strict=True)
        ]
        nats.append(sum(loss.item() for loss in losses))
    return nats


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Bits per byte of one model less those of another, on the same text.

    ``low`` to ``high`` is a 95% bootstrap interval over the text's ``units`` documents or windows, None where these are
    too few. It says what other text of the kind would change, not what training again with another seed would.
    """

    name: str
    against: str
    bpb: float
    low: float | None
    high: float | None
    unit: str
    units: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def difference(a: Scores, b: Scores, *, name: str, against: str, seed: int = 0) -> Difference:
    """How much more bits per byte ``a`` (called ``name``) needs than ``b`` (called ``against``).

    Whole documents are resampled where there are many of them, or where the models' tokens differ; else windows.
    """
    assert len(a.text_bytes) == len(b.text_bytes)
    total = int(a.text_bytes.sum())
    documents = len(a.text_bytes)
    same_windows = a.context == b.context and a.ids_digest == b.ids_digest
    if same_windows and documents < ENOUGH_DOCUMENTS:
        unit, nats_U, size_U = "window", a.nats - b.nats, a.tokens
    else:
        per_document = [np.bincount(scores.document, scores.nats, documents) for scores in (a, b)]
        unit, nats_U, size_U = "document", per_document[0] - per_document[1], a.text_bytes
    bits_U = nats_U / math.log(2)
    # a resample's difference per unit of size, in which all of the text has total bytes
    scale = size_U.sum() / total
    low = high = None
    if len(bits_U) >= FEWEST_UNITS:
        low, high = np.quantile(_resampled_ratios(bits_U, size_U, seed) * scale, [0.025, 0.975]).tolist()
    return Difference(
        name=name,
        against=against,
        bpb=float(bits_U.sum() / total),
        low=low,
        high=high,
        unit=unit,
        units=len(bits_U),
    )


def _resampled_ratios(bits_U: np.ndarray, size_U: np.ndarray, seed: int) -> np.ndarray:
    """Bits over size in each of many resamples of the units."""
    draw = np.random.default_rng(seed)
    units = len(bits_U)
    at_once = max(1, RESAMPLED_AT_ONCE // units)
    ratios = []
    for start in range(0, RESAMPLES, at_once):
        drawn = draw.integers(units, size=(min(at_once, RESAMPLES - start), units))
        ratios.append(bits_U[drawn].sum(1) / size_U[drawn].sum(1))
    return np.concatenate(ratios)
