"""Attention on a CPU: one query as two products, several in bfloat16 in tiles, the rest as PyTorch does it.

Shape legend: R rows, S queries, L keys, H heads, K key-value heads, G = H/K queries that share a key, d head width, N =
R·K.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from foveate.backends.cpu.plain import is_plain
from foveate.backends.cpu.tiled import attend_in_tiles

COPIED_AT_ONCE = 1 << 23  # bytes


def is_for(q: Tensor) -> bool:
    return q.device.type == "cpu" and is_plain(q)


def is_for_compiled(q_RSHd: Tensor) -> bool:
    """Of one query the products are the faster way for compiled models, too; what is exported is plain PyTorch."""
    return (
        torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
        and q_RSHd.device.type == "cpu"
        and q_RSHd.dtype is not torch.bfloat16
        and q_RSHd.shape[1] == 1
    )


def attend(q_RSHd: Tensor, k_RKLd: Tensor, v_RKLd: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """[R, S, H, d]; see ``foveate.backends.attend``."""
    if q_RSHd.shape[1] == 1:
        return attend_one(q_RSHd, k_RKLd, v_RKLd, mask)
    q_RHSd = q_RSHd.transpose(1, 2)
    if q_RSHd.dtype is torch.bfloat16 and not (mask is not None and mask.requires_grad):
        return attend_in_tiles(q_RHSd, k_RKLd, v_RKLd, mask, causal).transpose(1, 2)
    grouped = k_RKLd.shape[1] != q_RHSd.shape[1]
    return scaled_dot_product_attention(
        q_RHSd, k_RKLd, v_RKLd, attn_mask=mask, is_causal=causal, enable_gqa=grouped
    ).transpose(1, 2)


def attend_one(q_R1Hd: Tensor, k_RKLd: Tensor, v_RKLd: Tensor, mask: Tensor | None) -> Tensor:
    """One query of each row, [R, 1, H, d], as two products: torch's kernel takes longer, in bf16 several times."""
    R, _, H, d = q_R1Hd.shape
    K = k_RKLd.shape[1]
    q_NGd, k_NLd = q_R1Hd.reshape(R * K, H // K, d) * d**-0.5, k_RKLd.flatten(0, 1)
    if q_NGd.dtype == torch.bfloat16:  # where a product is slow whose second factor is transposed
        s_NLG = _bmm(k_NLd, q_NGd.transpose(1, 2))
        # a view, not a transposition, whose strides would count as transposed in the second product
        s_NGL = s_NLG.view(len(s_NLG), 1, -1) if H == K else s_NLG.transpose(1, 2).contiguous()
    else:
        s_NGL = _bmm(q_NGd, k_NLd.transpose(1, 2))
    if mask is not None:
        s_NGL = (s_NGL.unflatten(0, (R, K)) + mask).flatten(0, 1)
    p_NGL = torch.softmax(s_NGL, -1).to(v_RKLd.dtype)  # a mask to be added may be more exact than the keys
    return _bmm(p_NGL, v_RKLd.flatten(0, 1)).view(R, 1, H, d)


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    """``torch.bmm``, which in bf16 copies what is part of a larger tensor: here in pieces that a cache holds."""
    if a.dtype != torch.bfloat16:
        return torch.bmm(a, b)  # which a compiler sees, too: it has no sizes to be asked for
    largest = max(a.nbytes, b.nbytes)
    if largest <= COPIED_AT_ONCE:
        return torch.bmm(a, b)
    n = max(1, len(a) * COPIED_AT_ONCE // largest)
    return torch.cat([torch.bmm(*pair) for pair in zip(a.split(n), b.split(n), strict=True)])
