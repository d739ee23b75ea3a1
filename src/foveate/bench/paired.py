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

from foveate.data.encode import encode_documents
from foveate.errors import FoveateError
from foveate.scoring import IGNORED, Scorer, check_context, check_ids, document_windows, pad_rows
from foveate.stats import ENOUGH_DOCUMENTS, FEWEST_UNITS, intervals, resampled_sums
from foveate.train.evaluate import Evaluation

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
        tokens, text_bytes = int(self.tokens.sum()), int(self.text_bytes.sum())
        return Evaluation.of(self.nats.sum(), tokens=tokens, text_bytes=text_bytes, context=self.context)


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
    scorer = Scorer(model, tokenizer)
    windows: list[tuple[np.ndarray, np.ndarray]] = []  # inputs [T] and targets [T]
    document_of: list[int] = []
    digest = hashlib.blake2b()
    for document, (_, ids) in enumerate(encode_documents(tokenizer, texts)):
        check_ids(ids, f"document {document + 1}", model)
        ids_N = ids.astype(np.int64)
        digest.update(ids_N.tobytes() + b"|")
        for inputs_BT, targets_BT in document_windows(ids_N, scorer.prefix, context):
            windows += zip(inputs_BT, targets_BT, strict=True)
            document_of += [document] * len(inputs_BT)
    if not windows:
        raise FoveateError("there is no text to score: the data holds only empty documents")
    rows = scorer.rows(context)
    tokens_W = np.array([(targets_T != IGNORED).sum() for _, targets_T in windows])
    nats_W = np.empty(len(windows))
    by_length = np.argsort([-len(inputs_T) for inputs_T, _ in windows], kind="stable")
    with scorer.ready():
        for start in range(0, len(windows), rows):
            batch = by_length[start : start + rows]
            nats = scorer.nats(*pad_rows([windows[w] for w in batch], scorer.prefix))
            nats_W[batch] = np.add.reduceat(nats, np.cumsum([0, *tokens_W[batch[:-1]]]))
            advance(len(nats))
    return Scores(
        context=context,
        nats=nats_W,
        tokens=tokens_W,
        document=np.array(document_of),
        text_bytes=np.array([len(text.encode()) for text in texts]),
        ids_digest=digest.hexdigest(),
    )


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
    low = high = None
    if len(bits_U) >= FEWEST_UNITS:
        bits_R, size_R = resampled_sums(np.stack([bits_U, size_U], 1), seed=seed).T
        # a resample's difference per unit of size, in which all of the text has total bytes
        low, high = map(float, intervals(bits_R / size_R * (size_U.sum() / total)))
    return Difference(
        name=name,
        against=against,
        bpb=float(bits_U.sum() / total),
        low=low,
        high=high,
        unit=unit,
        units=len(bits_U),
    )
