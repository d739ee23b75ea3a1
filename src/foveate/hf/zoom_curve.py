"""How much a model loses by reading less: perplexity against the keys that a query reads, on texts of the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from foveate.hf.zoom import zoom
from foveate.hf.zoom_budget import head_errors, plans_of
from foveate.zooming import ZoomPlan

AT_ONCE = 512  # logits


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a mean budget costs.

    Attributes:
        opened: groups that a key head opens, in the mean.
        keys: read per query and key head, mean over heads, by the last query of a text.
        summaries: scored to find them.
        nats: per token of the texts' second halves.
        over_full: perplexity over that of full attention, less 1.
        plans: one per layer, with budgets by head.
    """

    opened: int
    keys: float
    summaries: float
    nats: float
    over_full: float
    plans: list[ZoomPlan]


def curve(
    model: Any,
    calibration: Sequence[Tensor],
    texts: Sequence[Tensor],
    plan: ZoomPlan,
    opened: Sequence[int],
    *,
    progress: Callable[[int], None] = lambda tokens: None,
) -> list[Point]:
    """A point for each mean number of groups opened: budgets found on the first texts, loss on the others.

    Args:
        model: of transformers, not zoomed.
        calibration: ids [1, T].
        texts: ids [1, T] on which loss is measured.
        progress: called with the tokens of each text that was read.
    """
    errors = head_errors(model, calibration, plan, progress=lambda done: progress(calibration[done - 1].shape[1]))
    full = _nats(model, texts, progress)
    points = []
    for count in opened:
        plans = plans_of(errors, replace(plan, opened=count), model.config.num_hidden_layers)
        with zoom(model, plans):
            nats = _nats(model, texts, progress)
        keys, summaries = _reads(plans, texts[0].shape[1] - 1)
        over = float(torch.tensor(nats - full).expm1())
        points.append(Point(opened=count, keys=keys, summaries=summaries, nats=nats, over_full=over, plans=plans))
    return points


def _reads(plans: Sequence[ZoomPlan], position: int) -> tuple[float, float]:
    budgets = [(plan, plan.opened if isinstance(plan.opened, tuple) else (plan.opened,)) for plan in plans]
    each = [replace(plan, opened=count).reads(position) for plan, counts in budgets for count in counts]
    keys, summaries = (sum(counts) / len(each) for counts in zip(*each, strict=True))
    return keys, summaries


@torch.inference_mode()
def _nats(model: Any, texts: Sequence[Tensor], progress: Callable[[int], None]) -> float:
    total, count = 0.0, 0
    for text in texts:
        ids, half = text.to(model.device), text.shape[1] // 2
        kept = text.shape[1] - half
        logits_TV = model(ids, logits_to_keep=kept + 1, use_cache=False).logits[0, :-1]
        for logits, targets in zip(logits_TV.split(AT_ONCE), ids[0, half:].split(AT_ONCE), strict=True):
            total += float(cross_entropy(logits.float(), targets, reduction="sum"))
        count += kept
        progress(text.shape[1])
    return total / count
