"""How many groups each key head should open, found on a text of the user's: some heads need far keys, many hardly any.

For sampled queries every head's attention is computed with few and with many groups opened; what its error costs is
measured behind the layer's output projection, against the layer's own output. Budgets then go, a step at a time, where
a key lowers the summed error most. A plan per layer comes out; a small JSON file keeps them.

Shape legend: H query heads, K key heads, G query heads of a key head, C sampled queries, T tokens, d head width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveate.errors import FoveateError, first_line, shown
from foveate.files import replacing
from foveate.hf import zoom_attention as interface
from foveate.hf.zoom import zoom
from foveate.zooming import ZoomPlan, zoom_attention

STEPS = (0, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192)  # groups opened that are tried
QUERIES = 128  # sampled per text: its last ones


def calibrate(
    model: Any, texts: Sequence[Tensor], plan: ZoomPlan, *, progress: Callable[[int], None] = lambda done: None
) -> list[ZoomPlan]:
    """A plan for each layer: ``plan`` with budgets by head whose mean is ``plan.opened`` or just below.

    Args:
        model: of transformers, not zoomed.
        texts: token ids [1, T], each as long as the contexts that matter.
        progress: called with the number of texts done.

    Raises:
        FoveateError: ``plan`` has budgets already, or no text is long enough to have far text.
    """
    if isinstance(plan.opened, tuple):
        raise FoveateError(f"calibration begins with one number, not with opened={shown(plan.opened)}")
    return plans_of(head_errors(model, texts, plan, progress=progress), plan, model.config.num_hidden_layers)


@torch.no_grad()
def head_errors(
    model: Any, texts: Sequence[Tensor], plan: ZoomPlan, *, progress: Callable[[int], None] = lambda done: None
) -> dict[int, Tensor]:
    """For each layer that zooms what its key heads' errors cost by ``STEPS`` groups opened, [K, steps]."""
    least = shortest_text(plan)
    short = [text.shape[1] for text in texts if text.shape[1] < least]
    if short or not texts:
        raise FoveateError(f"calibration needs texts of {least} tokens or more; got {short or 'none'}")
    errors: dict[int, Tensor] = {}

    def measure(module: Any, q_RHTd: Tensor, k_RKTd: Tensor, v_RKTd: Tensor, scale: float) -> None:
        found = _errors(q_RHTd[:, :, -QUERIES:], k_RKTd, v_RKTd, scale, plan, module)
        errors[module.layer_idx] = errors.get(module.layer_idx, 0) + found

    with zoom(model, plan):
        interface.measure = measure
        try:
            for done, text in enumerate(texts):
                model.base_model(input_ids=text.to(model.device), use_cache=False)
                progress(done + 1)
        finally:
            interface.measure = None
    return errors


def shortest_text(plan: ZoomPlan) -> int:
    """The fewest tokens of a text to calibrate on: a block of them is far."""
    return plan.near + plan.sinks + plan.block + QUERIES


def plans_of(errors: Mapping[int, Tensor], plan: ZoomPlan, layers: int) -> list[ZoomPlan]:
    """``plan`` for each layer, with budgets by head, as the errors of its heads want them."""
    assert isinstance(plan.opened, int)
    names = sorted(errors)
    plans = [plan] * layers
    for layer, row in zip(names, allot(torch.stack([errors[name] for name in names]), plan.opened), strict=True):
        plans[layer] = replace(plan, opened=tuple(row))
    return plans


def _errors(q_RHCd: Tensor, k_RKTd: Tensor, v_RKTd: Tensor, scale: float, plan: ZoomPlan, module: Any) -> Tensor:
    """Each key head's squared error behind the output projection, over the layer's output, by ``STEPS``, [K, steps]."""
    H, d = q_RHCd.shape[1], q_RHCd.shape[3]
    K = k_RKTd.shape[1]
    full_RHCd = interface.in_pieces(q_RHCd, k_RKTd, v_RKTd, None, scale, None)
    weight = next(getattr(module, name).weight for name in ("o_proj", "dense", "out_proj") if hasattr(module, name))

    def projected(x_RHCd: Tensor, heads: slice) -> Tensor:
        columns = weight[:, heads.start * d : heads.stop * d]
        return x_RHCd[:, heads].transpose(1, 2).flatten(2) @ columns.T

    size = projected(full_RHCd, slice(0, H)).float().square().sum().cpu()
    steps = []
    for opened in STEPS:
        off = zoom_attention(q_RHCd, k_RKTd, v_RKTd, replace(plan, opened=opened), scale=scale) - full_RHCd
        G = H // K
        heads = [projected(off, slice(k * G, (k + 1) * G)).float().square().sum().cpu() for k in range(K)]
        steps.append(torch.stack(heads) / size)
    return torch.stack(steps, -1)


def allot(errors_lks: Tensor, mean: int) -> list[list[int]]:
    """Budgets by layer and head, each one of ``STEPS``, of at most this mean, that keep the summed error low.

    A head's errors need not fall with every step: it goes to the later step that gains most per group.
    """
    errors, places = errors_lks.double().tolist(), [[0] * errors_lks.shape[1] for _ in range(errors_lks.shape[0])]
    left = mean * errors_lks.shape[0] * errors_lks.shape[1]
    while True:
        best = None
        for layer, heads in enumerate(errors):
            for head, curve in enumerate(heads):
                here = places[layer][head]
                for step in range(here + 1, len(STEPS)):
                    cost = STEPS[step] - STEPS[here]
                    gain = (curve[here] - curve[step]) / cost
                    if cost <= left and gain > 0 and (best is None or gain > best[0]):
                        best = (gain, layer, head, step, cost)
        if best is None:
            return [[STEPS[place] for place in row] for row in places]
        _, layer, head, step, cost = best
        places[layer][head] = step
        left -= cost


def save_plans(path: str | Path, plans: Sequence[ZoomPlan | None]) -> None:
    """One JSON file: settings by layer."""
    with replacing(Path(path)) as beside:
        beside.write_text(json.dumps({"plans": [plan and asdict(plan) for plan in plans]}) + "\n", encoding="utf-8")


def load_plans(path: str | Path) -> list[ZoomPlan | None]:
    """Plans as ``save_plans`` wrote them, for ``foveate.zoom(model, plans)``."""
    try:
        listed = json.loads(Path(path).read_text(encoding="utf-8"))["plans"]
        return [None if plan is None else ZoomPlan(**plan) for plan in listed]
    except FileNotFoundError:
        raise FoveateError(f"{path} does not exist") from None
    except FoveateError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FoveateError(f"{path} holds no plans of zoom: {first_line(error)}") from None
