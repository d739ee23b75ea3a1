"""Zoom attention by masks over all scores: quadratic work, but few and large operations. For texts that are not long.

A text's keys in their order, the means of the groups of its sorted blocks, and those of the contiguous groups that a
query finds in its tail stand in one row of columns. What each query chooses becomes a mask over them, found without
gradients; what it then reads is attention under that mask.

Shape legend: R rows, H query heads, K key heads, G query heads of a key head, C queries, T tokens, L slots,
n groups, N columns, d head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from foveate.spec.zoom_plan import ZoomPlan
from foveate.zooming.attend import spread_of


@dataclass(frozen=True)
class _Level:
    """The groups of one size: those of sorted blocks, then the contiguous ones, if a tail has groups of this size."""

    size: int
    keys: Tensor  # [R, K, n, d]
    values: Tensor
    spread: Tensor | None  # [R, K, n, 1]
    sorted: int  # how many of the n are of sorted blocks


def masked_attention(
    q_RHCd: Tensor, k_RKTd: Tensor, v_RKTd: Tensor, order_RKL: Tensor, plan: ZoomPlan, scale: float
) -> Tensor:
    """What the last C of T tokens see, [R, H, C, d].

    Args:
        order_RKL: for every slot of the sorted blocks, which of all slots lies there.
    """
    R, H, C, _ = q_RHCd.shape
    K, T = k_RKTd.shape[1:3]
    levels = _levels(k_RKTd[:, :, plan.sinks :], v_RKTd[:, :, plan.sinks :], order_RKL, plan)
    q_RKGCd = q_RHCd.unflatten(1, (K, H // K))
    mask_RKCN, thumbnails = _chosen(q_RKGCd, k_RKTd, levels, order_RKL, plan, scale)
    keys_RKNd = torch.cat([k_RKTd, *(level.keys for level in thumbnails)], 2)
    values_RKNd = torch.cat([v_RKTd, *(level.values for level in thumbnails)], 2)
    above_N = torch.zeros(keys_RKNd.shape[2], dtype=q_RHCd.dtype, device=q_RHCd.device)
    first = T
    for level in thumbnails:
        above_N[first : first + level.keys.shape[2]] = math.log(level.size)
        first += level.keys.shape[2]
    bias_RKCN = above_N.masked_fill(~mask_RKCN, -math.inf)

    def shared(x_RKNd: Tensor) -> Tensor:
        return x_RKNd.flatten(0, 1)[:, None].expand(-1, H // K, -1, -1)

    out = scaled_dot_product_attention(
        q_RKGCd.flatten(0, 1),
        shared(keys_RKNd),
        shared(values_RKNd),
        attn_mask=bias_RKCN.flatten(0, 1)[:, None].expand(-1, H // K, -1, -1),
        scale=scale,
    )
    return out.view(R, H, C, -1)


def _levels(k_RKLd: Tensor, v_RKLd: Tensor, order_RKL: Tensor, plan: ZoomPlan) -> list[_Level]:
    def groups(x_RKLd: Tensor, size: int) -> Tensor:
        whole = x_RKLd.shape[2] // size
        return x_RKLd[:, :, : whole * size].unflatten(2, (whole, size))

    index = order_RKL[..., None].expand(-1, -1, -1, k_RKLd.shape[-1])
    filed = [x.gather(2, index) for x in (k_RKLd, v_RKLd)]
    found = []
    for size in plan.levels:
        pair = [groups(x, size) for x in filed]
        count = pair[0].shape[2]
        if size <= plan.step:
            pair = [torch.cat((x, groups(y, size)), 2) for x, y in zip(pair, (k_RKLd, v_RKLd), strict=True)]
        spread = spread_of(pair[0]) if plan.spread else None
        found.append(_Level(size, pair[0].mean(3), pair[1].mean(3), spread, count))
    return found


@torch.no_grad()
def _chosen(
    q_RKGCd: Tensor, k_RKTd: Tensor, levels: list[_Level], order_RKL: Tensor, plan: ZoomPlan, scale: float
) -> tuple[Tensor, list[_Level]]:
    """Which columns each query reads, [R, K, C, N]: all tokens, then the groups of the levels that are returned."""
    C, T, S, device = q_RKGCd.shape[3], k_RKTd.shape[2], plan.sinks, q_RKGCd.device
    position_C1 = torch.arange(T - C, T, device=device)[:, None]
    far_C1 = ((position_C1 + 1 - plan.near - S) // plan.step * plan.step).clamp(min=0)
    blocks_C1 = far_C1 // plan.block
    token_T = torch.arange(T, device=device)
    certain_CT = (token_T <= position_C1) & ((token_T < S) | (token_T >= far_C1 + S))
    q_RKGCd = q_RKGCd * scale

    def scores(keys_RKnd: Tensor) -> Tensor:
        s_RKGCn = q_RKGCd @ keys_RKnd.transpose(-1, -2)[:, :, None]
        return s_RKGCn.float() if s_RKGCn.dtype in (torch.float16, torch.bfloat16) else s_RKGCn

    near_RKGC1 = scores(k_RKTd).masked_fill_(~certain_CT, -math.inf).logsumexp(-1, keepdim=True)
    opened = torch.arange(levels[0].sorted, device=device) < blocks_C1
    columns: list[Tensor] = []
    thumbnails = []
    limits = (*plan.keep, plan.most_opened)
    for depth, (level, limit) in enumerate(zip(levels, limits, strict=True)):
        n = level.keys.shape[2]
        if depth:
            opened = opened.repeat_interleave(levels[depth - 1].size // level.size, -1)
        if level.size == plan.step:
            group_n = torch.arange(n - level.sorted, device=device) * level.size
            tail = (group_n >= blocks_C1 * plan.block) & (group_n < far_C1)
            opened = torch.cat((opened, tail.expand(*opened.shape[:-1], -1)), -1)
        # a last group of the level above may have had more parts than the text has
        opened = pad(opened, (0, n - opened.shape[-1]))
        if not n or limit is None or (limit >= n and not (depth == len(plan.keep) and isinstance(plan.opened, tuple))):
            continue  # all are looked into
        logits_RKGCn = (scores(level.keys) + math.log(level.size)).masked_fill_(~_by_head(opened), -math.inf)
        if level.spread is not None:
            half_RKGC1 = plan.spread / 2 * q_RKGCd.square().sum(-1, keepdim=True)
            logits_RKGCn += half_RKGC1 * level.spread.transpose(-1, -2)[:, :, None]
        mass_RKGC1 = torch.logaddexp(near_RKGC1, logits_RKGCn.logsumexp(-1, keepdim=True))
        share_RKCn = (logits_RKGCn - mass_RKGC1).exp_().mean(2).masked_fill_(~opened, -1.0)
        top = share_RKCn.topk(min(limit, n), -1)
        chosen = top.values >= 0
        if depth == len(plan.keep) and isinstance(plan.opened, tuple):
            budget_K11 = torch.tensor(plan.opened, device=device)[:, None, None]
            chosen &= torch.arange(chosen.shape[-1], device=device) < budget_K11
        best_RKCn = torch.zeros_like(share_RKCn, dtype=torch.bool).scatter_(-1, top.indices, chosen)
        if level.size <= plan.thumbnails:
            thumbnails.append(level)
            columns.append(opened & ~best_RKCn)
        opened = best_RKCn
    key_RKCL = _keys(opened.expand(*k_RKTd.shape[:2], C, -1), levels[-1], order_RKL, max(0, T - S))
    return torch.cat((pad(key_RKCL, (min(S, T), 0)) | certain_CT, *columns), -1), thumbnails


def _by_head(x: Tensor) -> Tensor:
    """[..., K, C, n], or [C, n], to be broadcast over the query heads of a key head."""
    return x if x.dim() == 2 else x[:, :, None]


def _keys(opened_RKCn: Tensor, level: _Level, order_RKL: Tensor, slots: int) -> Tensor:
    """Of the opened smallest groups the slots, in the order of the text, [R, K, C, slots]."""
    in_blocks, in_tail = (
        part.repeat_interleave(level.size, -1)
        for part in opened_RKCn.split([level.sorted, opened_RKCn.shape[-1] - level.sorted], -1)
    )
    place_RK1L = order_RKL.argsort(-1)[:, :, None]
    in_blocks = in_blocks.gather(-1, place_RK1L.expand_as(in_blocks))
    return pad(in_blocks, (0, max(0, slots - in_blocks.shape[-1]))) | pad(in_tail, (0, slots - in_tail.shape[-1]))
