"""Attention whose resolution falls with distance: near units one by one, far ones as ever coarser groups.

A group's key and value are pooled once, from the finer region they leave, and stand at the group's middle. Several
units at once are cut into blocks, and all blocks attend in one batched call over gathered keys. One unit at a time
attends in place, to the slots of the tape under a mask that changes by one slot a unit; the unit that opens a block
takes the general way, which also moves what leaves each region.

Shape legend: R rows, S new units, n blocks of W units, H heads, K key-value heads, d head width, g units or groups per
group, N groups, L keys, C slots.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import pad

from foveate import spec
from foveate.model.attention import Heads, View, attend
from foveate.model.clock import Count, Span
from foveate.model.fovea_plan import Layout, Plan, Region, ratio_at, visible_slots
from foveate.model.rotary import Rotary, rotate
from foveate.model.tape import Tape, allocate

GATHERED_KEYS = 1 << 17  # keys gathered at once outside training: what bounds the memory of reading a long prompt


class FoveaTape(Tape):
    """Keys, values and keys before rotation of a run, in the slots of a ``Layout``."""

    def __init__(self, fovea: spec.Attention, *, stride: int, width: int, heads: int, layers: int) -> None:
        super().__init__(stride=stride, width=width, heads=heads, layers=layers, parts=3)
        self.fovea = fovea
        self.layout = Layout(fovea)
        self.ring = self.layout.fine
        self.mask: Tensor | None = None  # [1, C] of the block that ``mask_block`` names, all rows alike
        self.mask_block = -1

    @property
    def identity(self) -> tuple[Any, ...]:
        return (*super().identity, self.fovea)

    @property
    def bounded(self) -> bool:
        return self.fovea.tail == "log"

    def slots_needed(self, items: int) -> int:
        return self.layout.size(items)

    @property
    def forgets(self) -> bool:
        return True

    def set_slack(self, tokens: int, lengths: Count) -> None:
        before, self.layout = self.layout, Layout(self.fovea, -(-tokens // self.stride))
        self.ring = self.layout.fine
        self._move_slots(lengths, lambda units: (before.held(units, before), before.held(units, self.layout)))
        self.shortened()

    def store(
        self,
        layer: int,
        span: Span,
        region: int,
        parts: tuple[Tensor, ...],
        column: np.ndarray,
        count: np.ndarray,
        first: np.ndarray,
    ) -> None:
        """Write ``count`` [R] items from ``column`` [R] on, the region's from ``first`` [R] on, as many as it holds."""
        ring = self.layout.ring(region)
        skip = np.zeros_like(count) if ring is None else np.maximum(count - ring, 0)
        kept = count - skip
        if not kept.any():
            return
        row = np.repeat(np.arange(len(count)), kept)
        item = np.arange(len(row)) - np.repeat(kept.cumsum() - kept, kept) + np.repeat(skip, kept)
        self.put(layer, span, parts, row, column[row] + item, self.layout.slots(region, first[row] + item))

    def can_shorten(self, furthest: Count, shorter: Count) -> bool:
        """The block of the shorter rows' last unit must still be open, or slack must reach back to it."""
        units, back = np.asarray(furthest) // self.stride, np.asarray(shorter) // self.stride
        W = self.fovea.block
        same_block = (units - 1) // W <= np.maximum(back - 1, 0) // W
        return bool(np.all(same_block | (units - back <= self.layout.slack)))

    def one_unit_mask(self, span: Span, dtype: torch.dtype) -> Tensor:
        """Additive, for one new unit in each row: [1, C] that all rows share, or [R, 1, 1, C]."""
        if not span.even:
            return self._make_mask(cast(np.ndarray, span.end), dtype)[:, None, None]
        end = cast(int, span.end)
        block = (end - 1) // self.fovea.block
        if self.mask is None or self.mask_block != block or self.mask.shape[1] != self.capacity:
            self.mask, self.mask_block = self._make_mask(np.array([end]), dtype), block
        else:  # within a block only the new unit's own slot is added
            self.mask[0, (end - 1) % self.layout.fine] = 0
        return self.mask

    def _make_mask(self, ends: np.ndarray, dtype: torch.dtype) -> Tensor:
        """[R, C]."""
        assert self.data is not None
        hidden = torch.from_numpy(~visible_slots(self.layout, ends, self.capacity)).to(self.data.device)
        return allocate(tuple(hidden.shape), dtype, self.data.device).masked_fill_(hidden, -torch.inf)

    def shortened(self) -> None:
        self.mask = None


@dataclass(frozen=True)
class FoveaView(View):
    """``mask`` is [R·n, 1, W, L] of the plan's blocks, or, without a plan, that of one unit over the tape's slots."""

    plan: Plan | None = None
    rotations: tuple[tuple[Tensor, Tensor], ...] = ()  # of the new groups of each region


class GroupPool(nn.Module):
    """One group from its members: a softmax within the group, of a bias per place and what a gate sees in the key."""

    def __init__(self, members: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.members = members
        self.place_bias = nn.Parameter(torch.zeros(members, kv_heads))
        self.gate = nn.Parameter(torch.zeros(kv_heads, head_dim))
        self.offset = nn.Parameter(torch.zeros(kv_heads, head_dim))

    def forward(self, raw_RNKd: Tensor, v_RNKd: Tensor) -> tuple[Tensor, Tensor]:
        """Keys before rotation and values of the groups, [R, N / members, K, d]."""
        raw, value = (part.unflatten(1, (-1, self.members)) for part in (raw_RNKd, v_RNKd))
        weight = ((raw * self.gate).sum(-1) + self.place_bias).softmax(2)[..., None].to(raw.dtype)
        return (weight * raw).sum(2), (weight * value).sum(2)


class FoveaAttention(Heads):
    """See the module's docstring."""

    def __init__(self, level: spec.Level, fovea: spec.Attention) -> None:
        super().__init__(level, fovea)
        self.fovea = fovea
        pools = len(fovea.scales) + (fovea.tail == "log")  # all octaves of the tail share the last
        self.pools = nn.ModuleList(
            GroupPool(ratio_at(fovea, j), level.kv_heads, level.head_dim) for j in range(1, pools + 1)
        )

    def extra_repr(self) -> str:
        return str(self.fovea)

    def make_tape(self, stride: int, layers: int) -> FoveaTape:
        return FoveaTape(self.fovea, stride=stride, width=self.head_dim, heads=self.kv_heads, layers=layers)

    def prepare(self, span: Span, tape: Tape | None, rotary: Rotary, x: Tensor) -> FoveaView:
        cos, sin = rotary(span, x)
        device = x.device
        if span.size == 1 and isinstance(tape, FoveaTape) and not np.any(np.equal(span.start % self.fovea.block, 0)):
            return FoveaView(span, tape, cos, sin, tape.one_unit_mask(span, cos.dtype))
        if isinstance(tape, FoveaTape):
            tape.mask = None  # it knows units that are added one by one only
        plan = Plan(self.fovea, span)
        visible = torch.from_numpy(plan.visible).to(device)
        visible = visible.expand(len(x), *visible.shape[1:]).flatten(0, 1)[:, None]
        mask = torch.zeros(visible.shape, dtype=cos.dtype, device=device).masked_fill_(~visible, -torch.inf)
        rotations = []
        for region in plan.regions:
            group = (region.first + region.kept)[:, None] + np.arange(int(region.made.max()))
            middles = torch.from_numpy(group * region.scale + (region.scale - 1) / 2).to(device)
            rotations.append(rotary.at(middles, cos.dtype))
        return FoveaView(span, tape, cos, sin, mask, plan=plan, rotations=tuple(rotations))

    def forward(self, qkv: Tensor, view: View, layer: int) -> Tensor:
        assert isinstance(view, FoveaView)
        q, k, v = self.split(qkv, view)
        raw = self.raw_keys(qkv)
        if view.plan is None:
            tape = cast(FoveaTape, view.tape)
            tape.write(layer, view.span, k, v, raw)
            keys, values, _ = tape.read(layer, view.span, tape.capacity)
            return attend(q, keys, values, mask=view.mask)
        return self._blocks(q, k, v, raw, view, view.plan, layer)

    def _blocks(self, q: Tensor, k: Tensor, v: Tensor, raw: Tensor, view: FoveaView, plan: Plan, layer: int) -> Tensor:
        W, n, span = self.fovea.block, plan.n, view.span
        tape = cast(FoveaTape | None, view.tape)
        past = tape if tape is not None and tape.data is not None else None
        # the fine part starts two blocks before the first query's block, at the same column in every row
        fine_k, fine_v, fine_raw = self._fine(layer, plan, span, past, (k, v, raw))
        shown = self._regions(layer, plan, view, past, fine_raw, fine_v)
        if tape is not None:
            tape.store(layer, span, 0, (k, v, raw), plan.count * 0, plan.count, plan.start)
            for j, (region, groups) in enumerate(zip(plan.regions, shown, strict=True), 1):
                tape.store(layer, span, j, groups, region.kept, region.made, region.first + region.kept)
        offset = plan.offset
        if span.even:
            q = pad(q, (0, 0, 0, 0, int(offset[0]), n * W - int(offset[0]) - q.shape[1]))
        else:
            q = _shift(q, offset, n * W)
        out = self._attend_blocks(q, (fine_k, fine_v), shown, plan, view)
        if span.even:
            return out[:, int(offset[0]) : int(offset[0]) + span.size]
        column = torch.from_numpy(offset[:, None] + np.arange(span.size)).to(out.device).clamp_(max=out.shape[1] - 1)
        return out[torch.arange(len(out), device=out.device)[:, None], column]

    def _fine(
        self, layer: int, plan: Plan, span: Span, past: FoveaTape | None, new: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Keys, values and raw keys, each [R, (n + 2)·W, K, d], from two blocks before the first query's block on."""
        W, length = self.fovea.block, (plan.n + 2) * self.fovea.block
        if span.even:
            kept = int(plan.fine_past[0]) if past is not None else 0
            before = 2 * W + int(plan.offset[0]) - kept
            behind = length - before - kept - new[0].shape[1]
            if not kept:
                return tuple(pad(part, (0, 0, 0, 0, before, behind)) for part in new)
            assert past is not None
            slots = np.arange(int(plan.start[0]) - kept, int(plan.start[0]))[None] % past.layout.fine
            old = past.gather(layer, span, slots)
            return tuple(
                pad(torch.cat((o, part), 1), (0, 0, 0, 0, before, behind)) for o, part in zip(old, new, strict=True)
            )
        shifted = tuple(_shift(part, 2 * W + plan.offset, length) for part in new)
        if past is None:
            return shifted
        position = (plan.first_block[:, None] - 2) * W + np.arange(length)
        kept_here = (position < plan.start[:, None]) & (position >= (plan.start - plan.fine_past)[:, None])
        old = past.gather(layer, span, position % past.layout.fine)
        here = torch.from_numpy(kept_here).to(new[0].device)[..., None, None]
        return tuple(torch.where(here, o, part) for o, part in zip(old, shifted, strict=True))

    def _regions(
        self, layer: int, plan: Plan, view: FoveaView, past: FoveaTape | None, fine_raw: Tensor, fine_v: Tensor
    ) -> list[tuple[Tensor, ...]]:
        """For every region the groups at hand: keys, values and raw keys, each [R, N, K, d]."""
        even = view.span.even
        # what leaves the fine part, from the first unit that is in no group yet
        column = plan.unpooled - (plan.first_block - 2) * self.fovea.block
        raw, value = (_take(part, column, plan.leaving, even) for part in (fine_raw, fine_v))
        shown = []
        for j, region in enumerate(plan.regions, 1):
            pool = cast(GroupPool, self.pools[min(j, len(self.pools)) - 1])
            made = int(region.made.max())
            raw, value = pool(raw[:, : made * pool.members], value[:, : made * pool.members])
            cos, sin = view.rotations[j - 1]
            groups: tuple[Tensor, ...] = (rotate(raw + pool.offset.to(raw.dtype), cos, sin), value, raw)
            if past is not None and region.kept.any():
                groups = self._with_kept(layer, view.span, past, region, j, groups)
            shown.append(groups)
            raw, value = (part[:, : region.leaving] for part in (groups[2], groups[1]))
        return shown

    def _with_kept(
        self, layer: int, span: Span, past: FoveaTape, region: Region, j: int, new: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        kept = int(region.kept.max())
        slots = past.layout.slots(j, region.first[:, None] + np.arange(kept))
        both = tuple(torch.cat((o, p), 1) for o, p in zip(past.gather(layer, span, slots), new, strict=True))
        if span.even:
            return both
        # a row's new groups follow its own kept ones, not those of the row that keeps most
        column = np.arange(region.at_hand)
        column = np.where(column < region.kept[:, None], column, column - region.kept[:, None] + kept)
        return tuple(_pick(part, np.minimum(column, part.shape[1] - 1)) for part in both)

    def _attend_blocks(
        self, q: Tensor, fine: tuple[Tensor, ...], shown: list[tuple[Tensor, ...]], plan: Plan, view: FoveaView
    ) -> Tensor:
        mask = cast(Tensor, view.mask)
        W, n, R = self.fovea.block, plan.n, len(q)
        q_RnWHd = q.unflatten(1, (n, W))
        blocks = [part[:, W:].unflatten(1, (n + 1, W)) for part in fine]
        seen = [torch.from_numpy(region.seen).to(q.device) for region in plan.regions]
        keys_per_block = mask.shape[-1]
        at_once = n if torch.is_grad_enabled() else max(1, GATHERED_KEYS // (R * keys_per_block))
        regather = torch.is_grad_enabled() and not view.checkpointed
        outs = []
        for b in range(0, n, at_once):
            m = min(n, b + at_once) - b

            def gather(part: int, b: int = b, m: int = m) -> Tensor:
                near = blocks[part][:, b : b + m], blocks[part][:, b + 1 : b + m + 1]
                far = [_seen(groups[part], index[:, b : b + m]) for groups, index in zip(shown, seen, strict=True)]
                return torch.cat((*near, *far), 2).flatten(0, 1).transpose(1, 2)

            here = mask if m == n else mask.unflatten(0, (R, n))[:, b : b + m].flatten(0, 1)
            keys, values = gather(0), gather(1)
            with _gathered_again(gather, keys, values) if regather else contextlib.nullcontext():
                out = attend(q_RnWHd[:, b : b + m].flatten(0, 1), keys, values, mask=here)
            outs.append(out.unflatten(0, (R, m)).flatten(1, 2))
        return outs[0] if len(outs) == 1 else torch.cat(outs, 1)


def _gathered_again(gather: Callable[[int], Tensor], *gathered: Tensor) -> saved_tensors_hooks:
    """Inside, what is saved of ``gathered`` is not kept for the backward pass, which gathers it anew.

    Every unit is in the keys of two blocks and more; the units themselves are kept once.
    """
    # numbers and shapes alone: the hooks live as long as the graph, and what they refer to with them
    storages, shape = [tensor.untyped_storage().data_ptr() for tensor in gathered], gathered[0].shape

    def pack(saved: Tensor) -> Tensor | int:
        storage = saved.untyped_storage().data_ptr()
        return storages.index(storage) if storage in storages and saved.shape == shape else saved

    def unpack(saved: Tensor | int) -> Tensor:
        if not isinstance(saved, int):
            return saved
        with torch.no_grad():
            return gather(saved)

    return saved_tensors_hooks(pack, unpack)


def _shift(part: Tensor, offset: np.ndarray, length: int) -> Tensor:
    """Row r of [R, S, …] moved right by ``offset[r]``, zeros around it, [R, length, …]."""
    column = np.arange(length) - offset[:, None]
    inside = torch.from_numpy((column >= 0) & (column < part.shape[1])).to(part.device)
    return torch.where(inside[..., None, None], _pick(part, column.clip(0, part.shape[1] - 1)), 0)


def _pick(part: Tensor, column: np.ndarray) -> Tensor:
    """part[r, column[r]] for every row."""
    index = torch.from_numpy(column).to(part.device)
    return part[torch.arange(len(part), device=part.device)[:, None], index]


def _take(part: Tensor, first: np.ndarray, count: int, even: bool) -> Tensor:
    """``count`` columns of each row from ``first`` [R] on (its last column again where they run over)."""
    if even:
        return part[:, int(first[0]) : int(first[0]) + count]
    return _pick(part, np.minimum(first[:, None] + np.arange(count), part.shape[1] - 1))


def _seen(groups: Tensor, index: Tensor) -> Tensor:
    """groups [R, N, K, d] at ``index`` [1 or R, n, c]: [R, n, c, K, d]."""
    if len(index) == 1:
        return groups.index_select(1, index.flatten()).unflatten(1, index.shape[1:])
    return groups[torch.arange(len(groups), device=groups.device)[:, None, None], index]
