"""Attention for bfloat16 on CPUs: as matrix products over tiles of queries.

torch's own kernel takes two to three times as long as the products themselves (``foveate bench train --dtype bf16``
measures a step); forward alone it is this way too, so that numbers do not depend on whether gradients are wanted. As
in that kernel, nothing of the size queries x keys is kept for the backward pass: a tile's probabilities are computed
again.

Shape legend: R rows, H heads, K key-value heads, G = H/K queries that share a key, t queries of a tile, l its keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 128  # queries


def attend_in_tiles(q_RHSd: Tensor, k_RKLd: Tensor, v_RKLd: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Scaled dot-product attention [R, H, S, d]; a boolean mask, or one to be added, broadcasts to [R, H, S, L]."""
    out: Tensor = _Tiles.apply(q_RHSd, k_RKLd, v_RKLd, mask, causal)
    return out


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        out = torch.empty_like(q)
        for rows, keys, p_RKGtl, _ in _tiles(q, k, mask, causal):
            out[:, :, rows] = _apart(p_RKGtl @ v[:, :, :keys], q)
        ctx.save_for_backward(q, k, v, mask, out)
        ctx.causal = causal
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, out = ctx.saved_tensors
        grad = grads[0]
        dq = torch.empty_like(q)
        dk, dv = (torch.zeros(x.shape, dtype=torch.promote_types(x.dtype, torch.float32)) for x in (k, v))  # sums
        scale = q.shape[-1] ** -0.5
        # of what every query receives, the part along its own output is lost in the softmax
        along_RHS = (grad * out).sum(-1, keepdim=True)
        for rows, keys, p, q_tile in _tiles(q, k, mask, ctx.causal):
            grad_tile = _together(grad[:, :, rows], k)
            dv[:, :, :keys] += p.transpose(-1, -2) @ grad_tile
            ds = (grad_tile @ v[:, :, :keys].transpose(-1, -2)).sub_(_together(along_RHS[:, :, rows], k)).mul_(p)
            dq[:, :, rows] = _apart(ds @ k[:, :, :keys], q) * scale
            dk[:, :, :keys] += ds.transpose(-1, -2) @ q_tile
        return dq, dk.to(k.dtype), dv.to(v.dtype), None, None


def _tiles(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Iterator[tuple[slice, int, Tensor, Tensor]]:
    """For every tile its queries, the number of keys it may see, their probabilities [R, K, Gt, l], scaled queries."""
    S, L = q.shape[2], k.shape[2]
    G = q.shape[1] // k.shape[1]
    for start in range(0, S, TILE):
        rows = slice(start, min(start + TILE, S))
        keys = rows.stop if causal else L
        q_tile = _together(q[:, :, rows], k) * q.shape[-1] ** -0.5
        s = q_tile @ k[:, :, :keys].transpose(-1, -2)
        if causal:
            t = rows.stop - start
            future = torch.full((t, t), -torch.inf, dtype=s.dtype, device=s.device).triu_(1)
            s[..., start:].add_(future.repeat(G, 1))
        elif mask is not None:
            part_RKGtl = _by_key_head(mask[..., rows, :] if mask.shape[-2] > 1 else mask, G)
            s_RKGtl = s.unflatten(2, (G, -1))
            if mask.dtype is torch.bool:
                s_RKGtl.masked_fill_(part_RKGtl.logical_not(), -torch.inf)
            else:
                s_RKGtl.add_(part_RKGtl)
        yield rows, keys, torch.softmax(s, -1), q_tile


def _together(tile_RHtd: Tensor, k_RKLd: Tensor) -> Tensor:
    """[R, K, Gt, d]: the queries that share a key are rows of one product."""
    return tile_RHtd.unflatten(1, (k_RKLd.shape[1], -1)).flatten(2, 3)


def _apart(tile_RKGtd: Tensor, q_RHSd: Tensor) -> Tensor:
    """[R, H, t, d] again."""
    R, H, _, d = q_RHSd.shape
    return tile_RKGtd.reshape(R, H, -1, d)


def _by_key_head(mask: Tensor, G: int) -> Tensor:
    mask_RHtl = mask[(None,) * (4 - mask.dim())]
    return mask_RHtl[:, :, None] if mask_RHtl.shape[1] == 1 else mask_RHtl.unflatten(1, (-1, G))
