"""The order of a block: keys that point the same way become neighbours, so that their mean stands for them.

A balanced tree of median splits, each along the first principal direction of what it splits: every group of the
plan is then a slice of exact size, nested in the next larger. Softmax does not care for the order of its keys.

Shape legend: n keys of a block, d key width, m parts of the block, s keys of a part.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 4  # of power iteration


@torch.no_grad()
def sorted_order(keys_nd: Tensor, smallest: int) -> Tensor:
    """The order [..., n] in which the keys [..., n, d] of a block are to lie, for groups of ``smallest`` keys.

    All leading dimensions are sorted at once. n is ``smallest`` doubled some times.
    """
    if keys_nd.dtype in (torch.float16, torch.bfloat16):
        keys_nd = keys_nd.float()
    n = size = keys_nd.shape[-2]
    order_n = torch.arange(n, device=keys_nd.device).expand(keys_nd.shape[:-1])
    while size > smallest:
        keys_msd = keys_nd.unflatten(-2, (n // size, size))
        along_ms = _along_principal(keys_msd - keys_msd.mean(-2, keepdim=True))
        place_ms = along_ms.argsort(dim=-1, stable=True)
        order_n = order_n.unflatten(-1, (n // size, size)).gather(-1, place_ms).flatten(-2)
        keys_nd = keys_msd.gather(-2, place_ms[..., None].expand_as(keys_msd)).flatten(-3, -2)
        size //= 2
    return order_n


def _along_principal(c_msd: Tensor) -> Tensor:
    """Centred keys' coordinates along their first principal direction, found from the key furthest out."""
    furthest_m1d = c_msd.square().sum(-1).argmax(-1)[..., None, None].expand(*c_msd.shape[:-2], 1, c_msd.shape[-1])
    direction_md1 = c_msd.gather(-2, furthest_m1d).transpose(-1, -2)
    for _ in range(STEPS):
        direction_md1 = c_msd.transpose(-1, -2) @ (c_msd @ direction_md1)
        # keys that are all alike have no direction: 0 leaves them in their order
        direction_md1 = direction_md1 / direction_md1.norm(dim=-2, keepdim=True).clamp_min(1e-30)
    return (c_msd @ direction_md1)[..., 0]
