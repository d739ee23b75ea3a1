"""What computes attention where: the one door between the model and what is fast on a device.

Shape legend: R rows, S queries, L keys, H heads, K key-value heads, G = H/K queries that share a key, d head width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from foveate.backends import cpu


def attend(
    q_RSHd: Tensor,
    k_RKLd: Tensor,
    v_RKLd: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    soft_cap: float | None = None,
) -> Tensor:
    """Scaled dot-product attention with grouped queries, [R, S, H, d].

    Args:
        mask: 0 to be added where a key may be seen, -inf elsewhere; broadcasts to [R, 1, S, L].
        causal: query i sees the first i + 1 of as many keys.
        soft_cap: scores s become soft_cap · tanh(s / soft_cap), before the mask.
    """
    if soft_cap is not None:
        return attend_capped(q_RSHd, k_RKLd, v_RKLd, mask, causal, soft_cap)
    if cpu.is_for(q_RSHd) or cpu.is_for_compiled(q_RSHd):
        return cpu.attend(q_RSHd, k_RKLd, v_RKLd, mask, causal)
    return attend_anywhere(q_RSHd, k_RKLd, v_RKLd, mask, causal)


def attend_anywhere(q_RSHd: Tensor, k_RKLd: Tensor, v_RKLd: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """As PyTorch does it on any device."""
    S, H = q_RSHd.shape[1:3]
    K = k_RKLd.shape[1]
    if S == 1:
        # the queries that share a key stand as rows before it, which no kernel has to know of
        q_RKGd = q_RSHd.reshape(len(q_RSHd), K, H // K, -1)
        return scaled_dot_product_attention(q_RKGd, k_RKLd, v_RKLd, attn_mask=mask).reshape_as(q_RSHd)
    grouped = K != H
    if grouped and mask is not None and q_RSHd.device.type == "cuda":
        # with a mask and grouped queries no kernel but the one that keeps all scores would do
        k_RKLd, v_RKLd = (part.repeat_interleave(H // K, 1) for part in (k_RKLd, v_RKLd))
        grouped = False
    out_RHSd = scaled_dot_product_attention(
        q_RSHd.transpose(1, 2), k_RKLd, v_RKLd, attn_mask=mask, is_causal=causal, enable_gqa=grouped
    )
    return out_RHSd.transpose(1, 2)


def attend_capped(
    q_RSHd: Tensor, k_RKLd: Tensor, v_RKLd: Tensor, mask: Tensor | None, causal: bool, soft_cap: float
) -> Tensor:
    """Written out, since no kernel of PyTorch caps its scores: memory for each pair of query and key."""
    S, H = q_RSHd.shape[1:3]
    K = k_RKLd.shape[1]
    q_RKGSd = q_RSHd.transpose(1, 2).unflatten(1, (K, H // K)) * (q_RSHd.shape[-1] ** -0.5 / soft_cap)
    s_RKGSL = torch.tanh(q_RKGSd @ k_RKLd[:, :, None].transpose(-1, -2)) * soft_cap
    if causal:
        future = torch.ones(S, S, dtype=torch.bool, device=s_RKGSL.device).triu_(1)
        s_RKGSL = s_RKGSL.masked_fill(future, -torch.inf)
    if mask is not None:
        s_RKGSL = s_RKGSL + mask[:, :, None]
    p_RKGSL = torch.softmax(s_RKGSL, -1).to(v_RKLd.dtype)
    return (p_RKGSL @ v_RKLd[:, :, None]).flatten(1, 2).transpose(1, 2)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type that matrix products of ``x`` will have: autocast's, if it is on."""
    kind = x.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else x.dtype
