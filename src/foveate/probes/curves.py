"""What a shuffle probe found: a curve for each condition, a summary for each boundary.

Legend: N sequences, D distances past the boundary, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from foveate.probes.horizons import Band, Horizon, Resampled, Share, horizon, rounded, share_of
from foveate.probes.plan import ShufflePlan, Treatment
from foveate.probes.sequences import Sequences


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Nats more than under ``original``, at each distance past the boundary; of ``original``, zeros.

    ``nats`` is the loss itself.
    """

    condition: str
    context: int
    boundary: int
    unit: str | None
    delta: Band
    smooth: Band
    nats: np.ndarray
    sequences: int
    permutations: int

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "curve",
            "condition": self.condition,
            "unit": self.unit,
            "context": self.context,
            "boundary": self.boundary,
            **self.delta.to_json(),
            "nats": rounded(self.nats),
            "binned": self.smooth.to_json(),
            "sequences": self.sequences,
            "permutations": self.permutations,
        }


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the curves of one boundary and one unit of shuffling come to.

    ``order_share`` is the part of the far context's value, all that ``replace`` costs over all distances, that
    ``shuffle`` costs too: what was in the order. The rest survives shuffling. None where it was not measured.
    """

    context: int
    boundary: int
    unit: str | None
    order: Horizon | None
    topic: Horizon | None
    order_share: Share | None
    sequences: int
    documents: int
    permutations: int

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "kind": "summary",
            "unit": self.unit,
            "context": self.context,
            "boundary": self.boundary,
        }
        for name, found in (("order", self.order), ("topic", self.topic)):
            record |= {
                f"{name}_horizon": found and found.tokens,
                f"{name}_horizon_ci": found and [found.low, found.high],
                f"{name}_horizon_at_least": found and found.tokens == found.farthest,
                f"{name}_tolerance_nats": found and round(found.tolerance_nats, 6),
            }
        share = self.order_share
        record |= {
            "order_share": share and round(share.value, 4),
            "order_share_ci": share and [round(share.low, 4), round(share.high, 4)],
            "surviving_share": share and round(1 - share.value, 4),
            "sequences": self.sequences,
            "documents": self.documents,
            "permutations": self.permutations,
        }
        return record


@dataclass(frozen=True, kw_only=True)
class ShuffleResult:
    """Curves by boundary and condition, and a summary of each boundary and unit."""

    plan: ShufflePlan
    curves: tuple[Curve, ...]
    summaries: tuple[Summary, ...]
    available: int  # sequences that the text would have given

    def to_json(self) -> list[dict[str, Any]]:
        return [*(curve.to_json() for curve in self.curves), *(summary.to_json() for summary in self.summaries)]


def summarize(plan: ShufflePlan, losses: dict[str, np.ndarray], sequences: Sequences) -> ShuffleResult:
    """Curves and horizons of the losses of each treatment [N, P, D] and of ``original`` [N, T - first boundary]."""
    curves, summaries = [], []
    for boundary in plan.boundaries:
        original_ND = losses["original"][:, boundary - plan.context :].astype(np.float64)
        none = Treatment(condition="original", boundary=boundary, unit=None, permutations=1)
        resampled = partial(Resampled.of, seed=plan.seed, document_N=sequences.document)
        found = {none: resampled(np.zeros_like(original_ND))}
        for treatment in plan.treatments():
            if treatment.boundary == boundary:
                delta_ND = losses[treatment.name].mean(1, dtype=np.float64) - original_ND
                found[treatment] = resampled(delta_ND)
        for treatment, curve in found.items():
            curves.append(
                Curve(
                    condition=treatment.condition,
                    context=plan.context,
                    boundary=boundary,
                    unit=treatment.unit,
                    delta=curve.band(),
                    smooth=curve.binned(),
                    nats=original_ND.mean(0) + curve.mean,
                    sequences=len(original_ND),
                    permutations=treatment.permutations,
                )
            )
        replaced = next((curve for t, curve in found.items() if t.condition == "replace"), None)
        shuffled = {t.unit: curve for t, curve in found.items() if t.condition == "shuffle"}
        for unit in shuffled or (None,):
            order = shuffled.get(unit)
            summaries.append(
                Summary(
                    context=plan.context,
                    boundary=boundary,
                    unit=unit,
                    order=_horizon(order, plan),
                    topic=_horizon(replaced, plan),
                    order_share=None if order is None or replaced is None else share_of(order, replaced),
                    sequences=len(original_ND),
                    documents=len(np.unique(sequences.document)),
                    permutations=plan.permutations,
                )
            )
    return ShuffleResult(plan=plan, curves=tuple(curves), summaries=tuple(summaries), available=sequences.available)


def _horizon(curve: Resampled | None, plan: ShufflePlan) -> Horizon | None:
    return None if curve is None else horizon(curve, share=plan.tolerance, near=plan.near)
