"""Which keys a query of a zoom layer reads, and how: as they are, opened, or as thumbnails of groups. For showing it.

It is ``attend``'s walk down the tree, of one query, with the members of every group named.

Shape legend: K key heads, G query heads of a key head, T keys, L far slots, n candidates, d head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.spec.zoom_plan import ZoomPlan
from foveate.zooming.sort import sorted_order


@dataclass(frozen=True, kw_only=True)
class Looked:
    """How the newest query reads each key.

    Attributes:
        size: keys of the group as which a key is read, 1 if it is read by itself, 0 if it is not read, [K, T].
        opened: whether it is read by itself because its group was opened, [K, T].
    """

    size: Tensor
    opened: Tensor


@torch.no_grad()
def look(q_KGd: Tensor, k_KTd: Tensor, plan: ZoomPlan, scale: float) -> Looked:
    """Of the query at position T - 1. Queries and keys are rotated already."""
    K, T, _ = k_KTd.shape
    size, opened = torch.zeros(K, T, dtype=torch.long), torch.zeros(K, T, dtype=torch.bool)
    first, far = plan.sinks, plan.far(T - 1)
    sorted_slots = plan.blocks(T - 1) * plan.block
    size[:, :first] = size[:, first + far :] = 1
    place_KL = torch.arange(far).repeat(K, 1)
    if sorted_slots:
        blocks_Kbnd = k_KTd[:, first : first + sorted_slots].unflatten(1, (-1, plan.block))
        order_Kbn = sorted_order(blocks_Kbnd, plan.groups[-1]).cpu()
        start_b1 = torch.arange(0, sorted_slots, plan.block)[:, None]
        place_KL[:, :sorted_slots] = (order_Kbn + start_b1).flatten(1)
    for head in range(K):
        budget = plan.opened[head] if isinstance(plan.opened, tuple) else plan.opened
        k_Td, token_L = k_KTd[head], first + place_KL[head]
        near = torch.cat((torch.arange(min(first, T)), torch.arange(first + far, T)))
        certain_Gm = scale * q_KGd[head] @ k_Td[near].T
        groups = _Groups(scale * q_KGd[head], k_Td[token_L], certain_Gm.float())
        for members, of in groups.look_down(plan, sorted_slots, far, budget):
            size[head, token_L[members]] = of
            opened[head, token_L[members]] = of == 1
    return Looked(size=size, opened=opened)


class _Groups:
    """The candidates of one key head, each known by its first slot."""

    def __init__(self, q_Gd: Tensor, k_Ld: Tensor, certain_Gm: Tensor) -> None:
        self.q, self.k, self.certain = q_Gd, k_Ld, certain_Gm

    def look_down(self, plan: ZoomPlan, sorted_slots: int, far: int, budget: int) -> list[tuple[Tensor, int]]:
        """Slots that are read, with the size as which they are read; 1 for those of opened groups."""
        read = []
        first_n = torch.arange(0, sorted_slots, plan.block)
        limits = (*plan.keep, budget)
        for depth, size in enumerate(plan.levels):
            if depth:
                first_n = (first_n[:, None] + torch.arange(0, plan.levels[depth - 1], size)).flatten()
            if size == plan.step:
                first_n = torch.cat((first_n, torch.arange(sorted_slots, far, size)))
            limit = limits[depth]
            if limit is None or limit >= len(first_n):
                continue  # all are looked into
            best = torch.zeros(len(first_n), dtype=torch.bool)
            best[self._share(first_n, size).topk(limit).indices] = True
            if size <= plan.thumbnails:
                read.append((_members(first_n[~best], size), size))
            first_n = first_n[best]
        return [*read, (_members(first_n, plan.groups[-1]), 1)]

    def _share(self, first_n: Tensor, size: int) -> Tensor:
        """Of the attention, by the mean over the query heads, [n]."""
        mean_nd = self.k[_members(first_n, size)].unflatten(0, (-1, size)).mean(1)
        s_Gn = (self.q @ mean_nd.T).float() + math.log(size)
        return torch.softmax(torch.cat((s_Gn, self.certain), 1), 1)[:, : len(first_n)].mean(0).cpu()


def _members(first_n: Tensor, size: int) -> Tensor:
    return (first_n[:, None] + torch.arange(size)).flatten()
