"""How far back does word order matter? The context before a boundary is scrambled, the text after it scored.

After Khandelwal et al. (2018), "Sharp Nearby, Fuzzy Far Away". The same tokens are scored under every condition:
``original``; ``shuffle`` (the tokens, words, sentences or blocks before the boundary in random order); ``replace``
(another document's text before the boundary); ``truncate`` (none). Differences are paired, sequence by sequence.

Legend: N sequences, T tokens of one, b of them before the boundary, P permutations, D = T - b distances.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveate.data.encode import encode_documents
from foveate.probes.curves import ShuffleResult, summarize
from foveate.probes.plan import ShufflePlan, Treatment
from foveate.probes.sequences import Sequences, cut_sequences, foreign_text
from foveate.probes.store import Losses, model_digest
from foveate.probes.treatments import Unit, permute
from foveate.progress import token_progress
from foveate.scoring import Scorer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def probe_shuffle(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    plan: ShufflePlan | None = None,
    *,
    batch: int | None = None,
    folder: Path | None = None,
    progress: bool = True,
) -> ShuffleResult:
    """Measure what the context before a boundary is worth, in order and scrambled, to the tokens after it.

    Args:
        model: a causal language model in evaluation mode, or anything that is called as one.
        texts: documents. A sequence lies within one of them; ``replace`` takes from another.
        batch: rows computed at once; by default as many as keep the logits near half a GiB.
        folder: where losses are saved while the probe runs, and found again by one that was interrupted.
        progress: on standard error.

    Raises:
        FoveateError: the text is too short for one sequence, or one document only for ``replace``; a context above the
            model's positions; ids the model does not know; a folder that holds another experiment.
    """
    plan = plan or ShufflePlan()
    scorer = Scorer(model, tokenizer, batch=batch)
    documents = [ids for _, ids in encode_documents(tokenizer, texts)]
    sequences = cut_sequences(documents, plan.context, plan.sequences, plan.seed)
    scorer.check(sequences.ids, "the text", plan.context)
    contexts = {
        treatment.name: treated_context(treatment, sequences, documents, tokenizer, plan.seed)
        for treatment in plan.treatments()
    }
    losses = _score(model, scorer, plan, sequences, contexts, folder, progress)
    return summarize(plan, losses, sequences)


def treated_context(
    treatment: Treatment,
    sequences: Sequences,
    documents: Sequence[np.ndarray],
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> np.ndarray:
    """What stands before the boundary instead: int64 [N, P, tokens], the tokens ``b``, or 0 for ``truncate``."""
    b = treatment.boundary
    ids_Nb = sequences.ids[:, :b]
    # of its own for each treatment: another one more, or less, changes nothing
    random = np.random.default_rng([seed, zlib.crc32(treatment.name.encode())])
    if treatment.condition == "truncate":
        return ids_Nb[:, None, :0]
    if treatment.condition == "replace":
        return foreign_text(documents, sequences.document, b, treatment.permutations, random)
    unit_Nb = Unit.parse(treatment.unit or "token").number(ids_Nb, tokenizer)
    return permute(ids_Nb, unit_Nb, treatment.permutations, random)


def _score(
    model: Any,
    scorer: Scorer,
    plan: ShufflePlan,
    sequences: Sequences,
    contexts: dict[str, np.ndarray],
    folder: Path | None,
    progress: bool,
) -> dict[str, np.ndarray]:
    """Losses in nats of the tokens past each boundary: ``original`` [N, T - first boundary], others [N, P, D]."""
    ids_NT = sequences.ids
    N, T = ids_NT.shape
    first = min(plan.boundaries)
    treatments = list(plan.treatments())
    shapes: dict[str, tuple[int, ...]] = {"original": (N, T - first)}
    shapes |= {t.name: (N, t.permutations, T - t.boundary) for t in treatments}
    measured = {name: value for name, value in asdict(plan).items() if name not in ("tolerance", "near")}
    identity = {**measured, "text": sequences.digest, "model": model_digest(model) if folder else ""}
    kept = Losses(shapes, _as_json(identity), folder)
    tokens_each = T + sum(t.permutations * (contexts[t.name].shape[2] + T - t.boundary) for t in treatments)
    at_once = scorer.rows(T)
    with (
        scorer.ready(),
        token_progress("probing", N * tokens_each, show=progress) as advance,
        contextlib.ExitStack() as at_end,
    ):
        at_end.callback(kept.save)  # also what an interruption leaves
        advance(kept.done * tokens_each)
        for start in range(kept.done, N, at_once):
            rows = slice(start, min(start + at_once, N))
            found = {"original": scorer.last(ids_NT[rows], T - first)}
            advance(len(found["original"]) * T)
            for treatment in treatments:
                D = T - treatment.boundary
                treated = _join(contexts[treatment.name][rows], ids_NT[rows, treatment.boundary :])
                found[treatment.name] = scorer.last(treated, D).reshape(-1, treatment.permutations, D)
                advance(treated.size)
            kept.add(found)
    return kept.arrays


def _as_json(identity: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in identity.items()}


def _join(context_NPb: np.ndarray, rest_ND: np.ndarray) -> np.ndarray:
    """Each of P contexts before the same text: [N * P, b + D]."""
    N, P, _ = context_NPb.shape
    rest_NPD = np.broadcast_to(rest_ND[:, None], (N, P, rest_ND.shape[1]))
    return np.concatenate([context_NPb, rest_NPD], 2).reshape(N * P, -1)
