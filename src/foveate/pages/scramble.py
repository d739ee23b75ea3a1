"""Scramble: the tokens before a boundary in random order, and the surprise of each token after it.

It is ``foveate probe shuffle`` on one sequence, the visitor's text: the same permutations, curves and horizon.
"""

from __future__ import annotations

from typing import Any

from foveate.errors import FoveateError
from foveate.pages.fields import Fields
from foveate.pages.shelf import Shelf
from foveate.pages.texts import encode
from foveate.pages.work import Job, Work
from foveate.probes.horizons import Resampled, horizon
from foveate.probes.plan import ShufflePlan
from foveate.probes.sequences import Sequences
from foveate.probes.shuffle import treated_context
from foveate.scoring import Scorer

MOST_TOKENS = 4096
MOST_PERMUTATIONS = 64
UNITS = ("token", "word", "sentence")


def scramble(shelf: Shelf, fields: Fields) -> Work:
    """What a request asks for: ``model``, ``text``, ``boundary`` (tokens; None: half), ``unit``, ``permutations``,
    ``seed``. Each permutation is told as it is scored."""
    name, text = fields.name("model"), fields.text("text")
    boundary = fields.whole("boundary", 1, MOST_TOKENS, default=None)
    unit = fields.choice("unit", UNITS, default="token")
    permutations = fields.whole("permutations", 1, MOST_PERMUTATIONS, default=1)
    seed = fields.whole("seed", 0, 2**32 - 1, default=0)
    fields.end()

    def work(job: Job) -> dict[str, Any]:
        import numpy as np

        reader = shelf.reader(name)
        encoded = encode(reader, text, min(MOST_TOKENS, reader.limit or MOST_TOKENS))
        T = len(encoded)
        if T < 2:
            raise FoveateError("text: it is one token, and scrambling takes at least two")
        b = boundary if boundary is not None else T // 2
        if b >= T:
            raise FoveateError(f"boundary: {b:,} must be from 1 to {T - 1:,}, inside the {T:,} tokens of the text")
        plan = ShufflePlan(
            context=T, boundaries=(b,), conditions=("shuffle",), units=(unit,), permutations=permutations, seed=seed
        )
        row = Sequences(ids=encoded.ids[None], document=np.zeros(1, np.int64), available=1)
        treatment = next(plan.treatments())
        scorer = Scorer(reader.model, reader.tokenizer)
        scorer.check(row.ids, "the text", T)
        context_Pb = treated_context(treatment, row, [encoded.ids], reader.tokenizer, seed)[0]
        with scorer.ready():
            original_D = scorer.last(row.ids, T - b)[0]
            pieces = encoded.pieces
            job.tell(pieces=pieces, boundary=b, original=_list(original_D))
            shuffled = []
            for context_b in context_Pb:
                rows = np.concatenate([context_b, encoded.ids[b:]])[None]
                shuffled.append(scorer.last(rows, T - b)[0])
                order = reader.tokenizer.convert_ids_to_tokens(context_b[-8:].tolist())
                job.tell(permutation=len(shuffled), scrambled=_list(np.mean(shuffled, 0)), last=order)
        delta_D = np.mean(shuffled, 0, dtype=np.float64) - original_D.astype(np.float64)
        curve = Resampled.of(delta_D[None], seed=seed)
        found = horizon(curve, share=plan.tolerance, near=plan.near)
        return {
            "boundary": b,
            "tokens": T,
            "unit": unit,
            "permutations": permutations,
            "original": _list(original_D),
            "delta": _list(delta_D),
            "horizon": found.tokens,
            "farthest": found.farthest,
            "tolerance_nats": found.tolerance_nats,
            "running": _running(delta_D, plan),
        }

    return work


def _list(values: Any) -> list[float]:
    return [round(float(value), 6) for value in values]


def _running(delta_D: Any, plan: ShufflePlan) -> list[int]:
    """The horizon as it stands after each number of distances."""
    from foveate.probes.horizons import reach, tolerance

    level = tolerance(delta_D[None], plan.tolerance, plan.near)
    return [int(reach(delta_D[None, :d], level)[0]) for d in range(1, len(delta_D) + 1)]
