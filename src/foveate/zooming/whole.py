"""Zoom attention over a whole text at once, without a state: for training, where gradients are wanted.

Texts that are not long are read by masks over all scores: more work, but in few operations.

Shape legend: R rows, H query heads, K key heads, T tokens, C queries (the last ones), L slots,
d head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.spec.zoom_plan import ZoomPlan
from foveate.zooming.attend import Album, attend, spread_of
from foveate.zooming.masks import masked_attention
from foveate.zooming.sort import sorted_order
from foveate.zooming.state import bytes_at_once, queries_at_once

MASKED_UP_TO = 4096  # tokens


def zoom_attention(
    q_RHCd: Tensor, k_RKTd: Tensor, v_RKTd: Tensor, plan: ZoomPlan, *, scale: float | None = None
) -> Tensor:
    """What the last C of T tokens see, [R, H, C, d]. Differentiable but for the choice of groups and their order.

    Queries and keys are rotated already. Every row begins at its first column.

    Args:
        scale: of the products of queries and keys; 1/√d if not given.
    """
    (R, H, C, d), K = q_RHCd.shape, k_RKTd.shape[1]
    T = k_RKTd.shape[2]
    scale = d**-0.5 if scale is None else scale
    blocks, ready = plan.blocks(T - 1), plan.blocks(T - 1) * plan.block
    far_k = k_RKTd[:, :, plan.sinks : plan.sinks + ready].detach()
    order_RKL = torch.zeros(R, K, 0, dtype=torch.long, device=k_RKTd.device)
    if blocks:
        order = sorted_order(far_k.unflatten(2, (blocks, plan.block)), plan.groups[-1])
        order_RKL = (order + torch.arange(blocks, device=order.device)[:, None] * plan.block).flatten(2)
    masked = T <= MASKED_UP_TO
    at_once = queries_at_once(plan, q_RHCd, k_RKTd, T)
    if masked:
        at_once = max(1, bytes_at_once(q_RHCd.device) // (12 * R * (H + K) * 2 * T))
    read = masked_attention if masked else _gathered
    out, position = [], T - C
    while position < T:
        end = min(T, position + at_once)
        if not masked:
            end = min(end, position + plan.alike(position))
        first = position - (T - C)
        q_RHcd = q_RHCd[:, :, first : first + end - position]
        order = order_RKL[:, :, : plan.blocks(end - 1) * plan.block]
        out.append(read(q_RHcd, k_RKTd[:, :, :end], v_RKTd[:, :, :end], order, plan, scale))
        position = end
    return torch.cat(out, 2)


def _gathered(
    q_RHCd: Tensor, k_RKTd: Tensor, v_RKTd: Tensor, order_RKL: Tensor, plan: ZoomPlan, scale: float
) -> Tensor:
    """Each query's groups and keys are gathered for it: work linear in the text. Queries must be ``alike``."""
    position = k_RKTd.shape[2] - q_RHCd.shape[2]
    index = order_RKL[..., None]
    pairs = []
    for x in (k_RKTd, v_RKTd):
        filed = x[:, :, plan.sinks :].gather(2, index.expand(-1, -1, -1, x.shape[-1]))
        x_RKLd = torch.cat((filed, x[:, :, plan.sinks + order_RKL.shape[2] :]), 2)
        pairs.append((x[:, :, : plan.sinks], x_RKLd, [_means(x_RKLd, size) for size in plan.levels]))
    (sink_k, slots_k, means_k), (sink_v, slots_v, means_v) = pairs
    spreads = [spread_of(_groups(slots_k, size)) for size in plan.levels] if plan.spread else ()
    album = Album((sink_k, sink_v), (slots_k, slots_v), list(zip(means_k, means_v, strict=True)), spreads)
    return attend(q_RHCd, [position], album, plan, scale)


def _means(x_RKLd: Tensor, size: int) -> Tensor:
    return _groups(x_RKLd, size).mean(3)


def _groups(x_RKLd: Tensor, size: int) -> Tensor:
    whole = x_RKLd.shape[2] // size
    return x_RKLd[:, :, : whole * size].unflatten(2, (whole, size))
