"""Attention of a few queries that share their sorted blocks: the walk down the tree, then one softmax.

From the blocks down, a level's candidates are scored by their mean keys; the best are looked into, and their parts
are the next level's candidates. The smallest groups that win are read key by key. One softmax holds near text, sinks,
opened keys and the thumbnails of closed groups: a thumbnail of n keys is their mean key, ``log n`` above it, and
their mean value.

Shape legend: R rows, H query heads, K key heads, G query heads of a key head, C queries, n candidates, L slots,
d head width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.spec.zoom_plan import ZoomPlan
from foveate.zooming.keeping import Kept, picked, piece

Start = int | Tensor  # the same for all rows, or one for each, [R]


@dataclass(frozen=True)
class Album:
    """What queries read: sinks, slots (sorted where a block is complete), and the means of groups by level."""

    sinks: tuple[Tensor, Tensor]  # keys, values [R, K, sinks, d]
    slots: tuple[Tensor | Kept, Tensor | Kept]  # [R, K, L, d]
    means: Sequence[tuple[Tensor, Tensor]]  # one pair per level of the plan, [R, K, L / size, d]
    spreads: Sequence[Tensor] = ()  # one per level, if the plan counts them, [R, K, L / size, 1]


@dataclass(frozen=True)
class Nodes:
    """Candidates: consecutive ones that all queries share, or each query's own."""

    count: int
    start: Start = 0
    own: Tensor | None = None  # [R, K, C, n]
    valid: Tensor | None = None  # bool, broadcastable to [R, K, C, n]; None: all

    def parts(self, ratio: int) -> Nodes:
        """What these nodes are made of, one level down."""
        valid = self.valid if self.valid is None else self.valid.repeat_interleave(ratio, -1)
        if self.own is None:
            return Nodes(self.count * ratio, self.start * ratio, None, valid)
        own = self.own[..., None] * ratio + torch.arange(ratio, device=self.own.device)
        return Nodes(self.count * ratio, 0, own.flatten(-2), valid)

    def number(self, place: Tensor) -> Tensor:
        """The nodes at these places among the candidates."""
        if self.own is not None:
            return self.own.gather(-1, place)
        return place + (self.start if isinstance(self.start, int) else self.start[:, None, None, None])

    def of(self, x_RKLd: Tensor | Kept) -> Tensor:
        """Their entries: [R, K, n, d], shared by the queries, or [R, K, C, n, d]."""
        R, K, L, d = x_RKLd.shape
        if self.own is None:
            if isinstance(self.start, int):
                return piece(x_RKLd, self.start, self.start + self.count)
            index = self.start[:, None, None] + torch.arange(self.count, device=self.start.device)
            index = index.expand(-1, K, -1)
        else:
            index = self.own
        heads = torch.arange(R * K, device=index.device).view(R, K, *(1,) * (index.dim() - 2)) * L
        # past the end there are only entries that no query sees
        flat = (index.clamp(max=L - 1) + heads).flatten()
        return picked(x_RKLd, flat).view(*index.shape, d)


def scores(q_RKCGd: Tensor, keys: Tensor) -> Tensor:
    """Products of queries and keys, shared or their own, in at least single precision, [R, K, C, G, n]."""
    if keys.dim() == 4:
        s = (q_RKCGd.flatten(2, 3) @ keys.transpose(-1, -2)).unflatten(2, q_RKCGd.shape[2:4])
    else:
        s = q_RKCGd @ keys.transpose(-1, -2)
    return s.float() if s.dtype in (torch.float16, torch.bfloat16) else s


def weighted(p_RKCGn: Tensor, values: Tensor) -> Tensor:
    """Sums of values, shared or each query's own, [R, K, C, G, d]."""
    p_RKCGn = p_RKCGn.to(values.dtype)
    if values.dim() == 4:
        return (p_RKCGn.flatten(2, 3) @ values).unflatten(2, p_RKCGn.shape[2:4])
    return p_RKCGn @ values


def spread_of(groups_RKmsd: Tensor) -> Tensor:
    """The mean variance of a channel of the keys of each group, [R, K, m, 1]."""
    groups_RKmsd = groups_RKmsd.detach()
    return (groups_RKmsd - groups_RKmsd.mean(3, keepdim=True)).square().mean(3).mean(-1, keepdim=True)


def attend(q_RHCd: Tensor, firsts: Sequence[int], album: Album, plan: ZoomPlan, scale: float) -> Tensor:
    """Outputs [R, H, C, d] of C consecutive queries of each row.

    Args:
        firsts: position of each row's first query; one number if all rows have the same. Within a row, all queries
            must have as many sorted blocks (``ZoomPlan.alike``).
    """
    R, H, C, d = q_RHCd.shape
    K = album.slots[0].shape[1]
    q_RKCGd = (q_RHCd * scale).view(R, K, H // K, C, d).transpose(2, 3)
    where = Where(firsts, C, plan, q_RHCd.device)
    read = _Read(q_RKCGd)
    read.add(where.sinks(), album.sinks)
    read.add(where.near(), album.slots)
    _look_down(read, where, album, plan)
    return read.output().transpose(2, 3).reshape(R, H, C, d)


class Where:
    """Where a call's queries stand, and what of it follows without looking: sinks, near text, blocks, tail."""

    def __init__(self, firsts: Sequence[int], queries: int, plan: ZoomPlan, device: torch.device) -> None:
        self.plan, self.queries, self.device = plan, queries, device
        self.firsts = firsts if len(set(firsts)) > 1 else firsts[:1]
        columns = torch.arange(queries, device=device)
        self.positions_RC = self._start(self.firsts)[:, None] + columns
        self.far_RC = ((self.positions_RC + 1 - plan.near - plan.sinks) // plan.step * plan.step).clamp(min=0)
        self.blocks = [plan.blocks(first) for first in self.firsts]

    def _start(self, starts: Sequence[int]) -> Tensor:
        return torch.tensor(starts, device=self.device)

    def _nodes(self, starts: Sequence[int], count: int, low_RC: Tensor | None, high_RC: Tensor | None) -> Nodes:
        """Nodes from ``starts`` on, valid for a query from ``low`` to below ``high``."""
        one = len(set(starts)) == 1
        number_R1n = torch.arange(count, device=self.device)
        number_R1n = number_R1n[None, None] + (starts[0] if one else self._start(starts)[:, None, None])
        valid = None
        if low_RC is not None:
            valid = number_R1n >= low_RC[..., None]
        if high_RC is not None:
            valid = number_R1n < high_RC[..., None] if valid is None else valid & (number_R1n < high_RC[..., None])
        start: Start = starts[0] if one else self._start(starts)
        return Nodes(count, start, None, valid if valid is None else valid[:, None])

    def sinks(self) -> Nodes:
        count = min(self.plan.sinks, max(self.firsts) + self.queries)
        return self._nodes([0], count, None, self.positions_RC + 1)

    def near(self) -> Nodes:
        starts = [self.plan.far(first) for first in self.firsts]
        ends = [first + self.queries - self.plan.sinks for first in self.firsts]
        count = max(0, *(end - start for start, end in zip(starts, ends, strict=True)))
        return self._nodes(starts, count, self.far_RC, self.positions_RC + 1 - self.plan.sinks)

    def sorted_blocks(self) -> Nodes:
        few = len(set(self.blocks)) == 1
        high_RC = None if few else self._start(self.blocks)[:, None].expand(-1, self.queries)
        return self._nodes([0], max(self.blocks), None, high_RC)

    def tail(self) -> Nodes:
        """Groups of ``step`` of each row from its last sorted block to its near text."""
        plan, last = self.plan, self.queries - 1
        starts = [blocks * plan.block // plan.step for blocks in self.blocks]
        ends = [plan.far(first + last) // plan.step for first in self.firsts]
        count = max(0, *(end - start for start, end in zip(starts, ends, strict=True)))
        return self._nodes(starts, count, None, self.far_RC // plan.step)


class _Read:
    """What the queries read, gathered piece by piece, and the one softmax over it."""

    def __init__(self, q_RKCGd: Tensor) -> None:
        self.q = q_RKCGd
        self.logits: list[Tensor] = []
        self.values: list[Tensor] = []

    def add(self, nodes: Nodes, pair: tuple[Tensor | Kept, Tensor | Kept]) -> None:
        if nodes.count:
            self.put(masked(scores(self.q, nodes.of(pair[0])), nodes.valid), nodes.of(pair[1]))

    def put(self, logits_RKCGn: Tensor, values: Tensor) -> None:
        self.logits.append(logits_RKCGn)
        self.values.append(values)

    def mass(self) -> Tensor:
        """Log of the sum over all that is read so far, [R, K, C, G, 1]."""
        return torch.cat(self.logits, -1).logsumexp(-1, keepdim=True)

    def output(self) -> Tensor:
        p = torch.softmax(torch.cat(self.logits, -1), -1).split([part.shape[-1] for part in self.logits], -1)
        out = weighted(p[0], self.values[0])
        for part, values in zip(p[1:], self.values[1:], strict=True):
            out = out + weighted(part, values)
        return out


def masked(logits_RKCGn: Tensor, valid: Tensor | None) -> Tensor:
    return logits_RKCGn if valid is None else logits_RKCGn.masked_fill(~valid[..., None, :], -math.inf)


def _look_down(read: _Read, where: Where, album: Album, plan: ZoomPlan) -> None:
    certain: Tensor | None = None
    candidates = [where.sorted_blocks()]
    kept = (*plan.keep, plan.most_opened)
    for depth, size in enumerate(plan.levels):
        if depth:
            candidates = [nodes.parts(plan.levels[depth - 1] // size) for nodes in candidates]
        if size == plan.step:
            candidates.append(where.tail())
        candidates = [nodes for nodes in candidates if nodes.count]
        total, limit = sum(nodes.count for nodes in candidates), kept[depth]
        last = size == plan.groups[-1]
        if not total or limit is None or (total <= limit and not (last and isinstance(plan.opened, tuple))):
            continue  # all are looked into
        if certain is None:
            with torch.no_grad():
                certain = read.mass()
        keys, values = album.means[depth]
        parts = [masked(scores(read.q, n.of(keys)) + math.log(size), n.valid) for n in candidates]
        budgets = plan.opened if last and isinstance(plan.opened, tuple) else None
        ranked = parts
        if album.spreads:
            half_RKCG1 = plan.spread / 2 * read.q.detach().square().sum(-1, keepdim=True)
            spreads = [n.of(album.spreads[depth])[..., 0] for n in candidates]
            ranked = [
                part.detach() + half_RKCG1 * (x[:, :, None, None] if x.dim() == 3 else x[:, :, :, None])
                for part, x in zip(parts, spreads, strict=True)
            ]
        best = _best(torch.cat(ranked, -1), certain, candidates, min(limit, total), budgets)
        if size <= plan.thumbnails:
            for nodes, logits, closed in zip(candidates, parts, best.closed(parts), strict=True):
                read.put(masked(logits, closed), nodes.of(values))
        candidates = [best.nodes]
    for nodes in candidates:
        read.add(nodes.parts(plan.groups[-1]), album.slots)


@dataclass(frozen=True)
class _Best:
    nodes: Nodes
    place: Tensor  # among the candidates, [R, K, C, n]

    def closed(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """Of the candidates of each part, those not chosen."""
        counts = [part.shape[-1] for part in parts]
        shape = (*self.place.shape[:-1], sum(counts))
        open_RKCn = torch.zeros(shape, dtype=torch.bool, device=self.place.device)
        assert self.nodes.valid is not None
        open_RKCn.scatter_(-1, self.place, self.nodes.valid)
        return (~open_RKCn).split(counts, -1)


@torch.no_grad()
def _best(
    logits_RKCGn: Tensor, certain_RKCG1: Tensor, candidates: list[Nodes], limit: int, budgets: Sequence[int] | None
) -> _Best:
    """The candidates with the largest share, by the mean over the query heads of a key head."""
    mass_RKCG1 = torch.logaddexp(certain_RKCG1, logits_RKCGn.logsumexp(-1, keepdim=True))
    share_RKCn = (logits_RKCGn - mass_RKCG1).exp().mean(3)
    share_RKCn = share_RKCn.masked_fill(logits_RKCGn[:, :, :, 0].isneginf(), -1.0)
    top = share_RKCn.topk(limit, -1)
    valid = top.values >= 0
    if budgets is not None:
        budget_K11 = torch.tensor(budgets, device=valid.device)[:, None, None]
        valid = valid & (torch.arange(limit, device=valid.device) < budget_K11)
    number = candidates[0].number(top.indices.clamp(max=candidates[0].count - 1))
    offset = candidates[0].count
    for nodes in candidates[1:]:
        place = (top.indices - offset).clamp(0, nodes.count - 1)
        number = torch.where(top.indices >= offset, nodes.number(place), number)
        offset += nodes.count
    return _Best(replace(Nodes(limit), own=number, valid=valid), top.indices)
