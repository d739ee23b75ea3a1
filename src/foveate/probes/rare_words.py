"""Which words one model predicts better than another: by how often the training text has them, and by how long ago
the context had them.

Legend: I scored items of the text (words, and what is between them), U units resampled (documents or windows), C cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from foveate.errors import FoveateError
from foveate.probes.gains import Gain, largest_gains
from foveate.probes.word_loss import BETWEEN_WORDS, SEVERAL_WORDS, Reader, WordLosses, word_losses
from foveate.probes.words import TrainingCounts, count_words, vocabulary_of
from foveate.progress import byte_progress
from foveate.stats import ENOUGH_DOCUMENTS, FEWEST_UNITS, intervals, resampled_sums

DECADES = (1, 10, 100, 1_000, 10_000)
DISTANCES = (16, 64, 256)  # words back, to the nearest of which an occurrence is told apart


@dataclass(frozen=True, kw_only=True)
class Range:
    """Whole numbers from ``low`` to ``high``, without end where that is None."""

    low: int
    high: int | None

    def holds(self, numbers: np.ndarray) -> np.ndarray:
        """Which of the numbers are within: bool, of the same shape."""
        return (numbers >= self.low) & (numbers <= (np.inf if self.high is None else self.high))


Key = tuple[str, Range | None, Range | None]  # of a cell: part, train_count, distance


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Some of the text under both models. Differences are those of A less B: above 0, B predicts it better.

    Attributes:
        part: ``words``, ``between`` (what is between words: punctuation), ``several`` (words that some token joins)
            or ``text``, which is all of these.
        train_count: how often the training text has these words; None for any number.
        distance: how many words back they occurred last in the context, ``low`` 0 where they did not; None for either.
        count, distinct: its words, or the pieces of text between them; the different words among them.
        nats_a, nats_b, delta_nats: loss of one of them. With a 95% interval, None where too few units have any.
        delta_bpb: their part in the difference in bits per byte of the whole text. With a 95% interval.
    """

    part: str
    train_count: Range | None
    distance: Range | None
    count: int
    distinct: int
    nats_a: float
    nats_b: float
    delta_nats: float
    ci_low: float | None
    ci_high: float | None
    delta_bpb: float
    bpb_ci_low: float | None
    bpb_ci_high: float | None


@dataclass(frozen=True, kw_only=True)
class RareWords:
    """Two models compared word by word; ``gains`` name, of each bucket of ``buckets``, the words that differ most.

    The intervals are bootstrap intervals over ``units`` documents or windows (``unit``). They say what other text of
    the kind would change, not what training again with another seed would. ``left_out`` words were too long for a
    window.
    """

    a: str
    b: str
    bpb_a: float
    bpb_b: float
    text_bytes: int
    train_words: int
    context: int
    unit: str
    units: int
    left_out: int
    cells: tuple[Cell, ...]
    buckets: tuple[Range, ...]
    gains: tuple[Gain, ...]

    def cell(
        self, part: str = "words", *, train_count: Range | None = None, distance: Range | None = None
    ) -> Cell | None:
        """That cell; None if the text has nothing of it."""
        wanted = (part, train_count, distance)
        return next((cell for cell in self.cells if (cell.part, cell.train_count, cell.distance) == wanted), None)

    def records(self) -> Iterator[dict[str, Any]]:
        """JSON objects: the ``kind`` of the first is ``rare_words``, of the others ``cell`` or ``gain``."""
        values = asdict(self)
        cells, gains = values.pop("cells"), values.pop("gains")
        yield {"kind": "rare_words", **values}
        yield from ({"kind": "cell", **cell} for cell in cells)
        for gain in gains:
            [bucket] = [asdict(bucket) for bucket in self.buckets if bucket.holds(gain["train_count"])]
            yield {"kind": "gain", "bucket": bucket, **gain}


def probe_rare(
    a: Reader,
    b: Reader,
    train: Iterable[str],
    texts: Sequence[str],
    *,
    context: int | None = None,
    edges: Sequence[int] = DECADES,
    top: int = 3,
    batch: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> RareWords:
    """Compare two models on the words of ``texts``, by how often ``train`` has them.

    Args:
        train: the text that the models were trained on, in pieces that end between words; read once, not kept.
        context, batch: as in ``foveate.probes.word_loss.word_losses``.
        edges: the counts at which buckets begin, rising; what is below the first is one too.
        top: words to name in each bucket, for each model.
        seed: of the resampling.
        progress: show it on standard error.

    Raises:
        FoveateError: as ``word_losses``; edges that do not rise; a text, or a training text, without words.
    """
    if seed < 0:
        raise FoveateError(f"--seed: {seed} must be at least 0")
    buckets = _buckets(edges)
    vocabulary = vocabulary_of(texts)
    if not vocabulary:
        raise FoveateError("there are no words to score: the data has no letters or digits")
    with byte_progress("counting the training text's words", None, show=progress) as advance:
        counts = count_words(train, vocabulary, advance=advance)
    if not counts.total:
        raise FoveateError("there are no words in the training text: it has no letters or digits")
    losses = word_losses([a, b], texts, context=context, batch=batch, progress=progress)
    if not (losses.word >= 0).any():
        raise FoveateError(
            f"no word can be scored by itself: each is longer than the {losses.context:,} tokens of a window, or "
            f"joined to others by a token"
        )
    return compare_words(losses, counts, names=(a.name, b.name), buckets=buckets, top=top, seed=seed)


def _buckets(edges: Sequence[int]) -> tuple[Range, ...]:
    starts = [0, *edges]
    if any(after <= before for before, after in pairwise(starts)):
        raise FoveateError(f"--buckets: {' '.join(map(str, edges))} must be rising numbers from 1, such as 1 10 100")
    return tuple(Range(low=low, high=high) for low, high in zip(starts, [*(e - 1 for e in edges), None], strict=True))


def _distances(context_words: int) -> tuple[Range, ...]:
    """Not in the context, then ever longer ago, as far as any word was."""
    edges = [0, 1, *(distance + 1 for distance in DISTANCES if distance < context_words)]
    return tuple(
        Range(low=low, high=high) for low, high in zip(edges, [*(e - 1 for e in edges[1:]), None], strict=True)
    )


def compare_words(
    losses: WordLosses,
    counts: TrainingCounts,
    *,
    names: tuple[str, str],
    buckets: Sequence[Range],
    top: int = 3,
    seed: int = 0,
) -> RareWords:
    """``probe_rare`` from what has been measured: ``losses`` of two models, and counts of their vocabulary."""
    train_count_V = np.array([counts.of[word] for word in losses.vocabulary])
    text_bytes = int(losses.bytes.sum())
    bpb_a, bpb_b = (losses.nats.sum(1) / math.log(2) / text_bytes).tolist()
    by_document = len(losses.texts) >= ENOUGH_DOCUMENTS
    present, unit_I = np.unique(losses.text if by_document else losses.window, return_inverse=True)
    return RareWords(
        a=names[0],
        b=names[1],
        bpb_a=bpb_a,
        bpb_b=bpb_b,
        text_bytes=text_bytes,
        train_words=counts.total,
        context=losses.context,
        unit="document" if by_document else "window",
        units=len(present),
        left_out=losses.left_out,
        cells=tuple(_cells(losses, _choose(losses, train_count_V, buckets), unit_I, seed)),
        buckets=tuple(buckets),
        gains=tuple(
            gain
            for bucket in buckets
            for gain in largest_gains(losses, train_count_V, names, bucket.holds(train_count_V), top)
        ),
    )


def _choose(losses: WordLosses, train_count_V: np.ndarray, buckets: Sequence[Range]) -> dict[Key, np.ndarray]:
    """The items of every cell that has any, in the order in which cells are shown."""
    is_word_I = losses.word >= 0
    train_count_I = np.where(is_word_I, train_count_V[losses.word], -1)
    distances = (None, *_distances(int(losses.distance.max())))
    masks: dict[Key, np.ndarray] = {
        ("text", None, None): np.full(len(is_word_I), True),
        ("between", None, None): losses.word == BETWEEN_WORDS,
        ("several", None, None): losses.word == SEVERAL_WORDS,
    }
    for bucket in (None, *buckets):
        in_bucket_I = is_word_I if bucket is None else bucket.holds(train_count_I)
        for distance in distances:
            at_distance_I = True if distance is None else distance.holds(losses.distance)
            masks["words", bucket, distance] = in_bucket_I & at_distance_I
    return {key: np.flatnonzero(mask_I) for key, mask_I in masks.items() if mask_I.any()}


def _cells(
    losses: WordLosses,
    chosen: dict[Key, np.ndarray],
    unit_I: np.ndarray,
    seed: int,
) -> Iterator[Cell]:
    delta_I = losses.nats[0] - losses.nats[1]
    U, C = unit_I.max() + 1, len(chosen)
    delta_UC = np.stack([np.bincount(unit_I[some], delta_I[some], U) for some in chosen.values()], 1)
    count_UC = np.stack([np.bincount(unit_I[some], minlength=U) for some in chosen.values()], 1)
    bytes_U1 = np.bincount(unit_I, losses.bytes, U)[:, None]
    sums = resampled_sums(np.hstack([delta_UC, count_UC, bytes_U1]), seed=seed)
    delta_RC, count_RC, bytes_R1 = np.split(sums, [C, 2 * C], 1)
    with np.errstate(invalid="ignore"):  # a resample without any of a cell's words says nothing of them
        low_C, high_C = intervals(delta_RC / count_RC)
    bpb_low_C, bpb_high_C = intervals(delta_RC / bytes_R1 / math.log(2))
    known_C = (count_UC > 0).sum(0) >= FEWEST_UNITS
    for c, ((part, train_count, distance), some) in enumerate(chosen.items()):
        nats_a, nats_b = losses.nats[:, some].mean(1).tolist()
        words = losses.word[some]
        yield Cell(
            part=part,
            train_count=train_count,
            distance=distance,
            count=len(some),
            distinct=len(np.unique(words[words >= 0])),
            nats_a=nats_a,
            nats_b=nats_b,
            delta_nats=float(delta_I[some].mean()),
            ci_low=float(low_C[c]) if known_C[c] else None,
            ci_high=float(high_C[c]) if known_C[c] else None,
            delta_bpb=float(delta_I[some].sum() / math.log(2) / losses.bytes.sum()),
            bpb_ci_low=float(bpb_low_C[c]) if known_C[c] else None,
            bpb_ci_high=float(bpb_high_C[c]) if known_C[c] else None,
        )
