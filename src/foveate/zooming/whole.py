"""Zoom attention over a whole text at once, without a state: for training, where gradients are wanted.

Shape legend: R rows, H query heads, K key heads, T tokens, C queries (the last ones), d head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.spec.zoom_plan import ZoomPlan
from foveate.zooming.attend import Album, attend
from foveate.zooming.sort import sorted_order
from foveate.zooming.state import queries_at_once


def zoom_attention(
    q_RHCd: Tensor, k_RKTd: Tensor, v_RKTd: Tensor, plan: ZoomPlan, *, scale: float | None = None
) -> Tensor:
    """What the last C of T tokens see, [R, H, C, d]. Differentiable but for the choice of groups and their order.

    Queries and keys are rotated already. Every row begins at its first column.

    Args:
        scale: of the products of queries and keys; 1/√d if not given.
    """
    R, H, C, d = q_RHCd.shape
    K, T = k_RKTd.shape[1:3]
    scale = d**-0.5 if scale is None else scale
    S, block = plan.sinks, plan.block
    blocks = plan.blocks(T - 1)
    (sink_k, slots_k, far_k), (sink_v, slots_v, far_v) = (
        (x[:, :, :S], x[:, :, S:], x[:, :, S : S + blocks * block]) for x in (k_RKTd, v_RKTd)
    )
    if blocks:
        order = sorted_order(far_k.detach().unflatten(2, (blocks, block)), plan.groups[-1])
        index = (order + torch.arange(blocks, device=order.device)[:, None] * block).flatten(2)[..., None]
        far_k = far_k.gather(2, index.expand(-1, -1, -1, far_k.shape[-1]))
        far_v = far_v.gather(2, index.expand(-1, -1, -1, far_v.shape[-1]))
    at_once = queries_at_once(plan, R, H, K, d, T, k_RKTd.element_size())
    out, position = [], T - C
    while position < T:
        count = min(at_once, plan.alike(position), T - position)
        ready = plan.blocks(position) * block
        end = max(ready, position + count - S)
        slots = [
            torch.cat((far[:, :, :ready], x[:, :, ready:end]), 2) for far, x in ((far_k, slots_k), (far_v, slots_v))
        ]
        means = [tuple(_means(x, size) for x in slots) for size in plan.levels]
        album = Album((sink_k, sink_v), (slots[0], slots[1]), means)  # type: ignore[arg-type]
        first = position - (T - C)
        out.append(attend(q_RHCd[:, :, first : first + count], [position], album, plan, scale))
        position += count
    return torch.cat(out, 2)


def _means(x_RKLd: Tensor, size: int) -> Tensor:
    whole = x_RKLd.shape[2] // size
    return x_RKLd[:, :, : whole * size].unflatten(2, (whole, size)).mean(3)
