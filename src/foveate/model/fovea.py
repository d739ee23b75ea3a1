"""Attention whose resolution falls with distance: near units one by one, far ones as ever coarser groups.

A group's key and value are pooled once, from the finer region they leave, and stand at the group's middle. Several
units at once are cut into blocks, and all blocks attend in one batched call over gathered keys. One unit at a time
attends in place, to the slots of the buffer under a mask; the unit that opens a block takes the general way, which also
moves what leaves each region.

Shape legend: R rows, S new units, n blocks of W units, H heads, K key-value heads, d head width, g units or groups per
group, N groups, L keys, C slots.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import pad

from foveate.model.attention import Heads, Metadata, additive
from foveate.model.buffer import Buffer, Place
from foveate.model.clock import Units
from foveate.model.fovea_plan import Plan, Planner, Region, first_seen, seen_slots
from foveate.model.rotary import Rotary, rotate
from foveate.model.slots import RegionSlots
from foveate.spec import Fovea, Level

GATHERED_KEYS = 1 << 17  # keys gathered at once outside training: what bounds the memory of reading a long prompt

Parts = tuple[Tensor, ...]  # keys, values, keys before rotation


class FoveaBuffer(Buffer):
    """Keys, values and keys before rotation of a run, in the slots of its regions."""

    def __init__(self, fovea: Fovea, *, stride: int, width: int, heads: int, layers: int) -> None:
        super().__init__(
            stride=stride, width=width, heads=heads, layers=layers, parts=3, slots=RegionSlots(fovea=fovea)
        )
        self.fovea = fovea
        self._of_block: tuple[tuple[int, ...], Tensor] = (), torch.empty(0)  # what it follows from, and ``first_seen``

    def one_unit_mask(self, units: Units, device: torch.device, dtype: torch.dtype) -> Tensor:
        """[1 or R, 1, 1, C] for one new unit in each row."""
        if not units.aligned:
            seen = seen_slots(self.fovea, self.slots, units.starts(device), units.longest, self.capacity)
            return additive(seen, dtype)[:, None, None]
        block, place = divmod(units.first, self.fovea.block)
        key = block, self.capacity, self.slots.slack
        if self._of_block[0] != key:
            self._of_block = key, first_seen(self.fovea, self.slots, block, self.capacity, device)
        return additive(self._of_block[1] <= place, dtype)[None, None, None]


@dataclass(frozen=True, kw_only=True)
class FoveaMetadata(Metadata):
    """``mask`` is [R·n, 1, W, L] of the plan's blocks, or, without a plan, that of one unit over the buffer's slots."""

    plan: Plan | None = None


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

    def __init__(self, level: Level, fovea: Fovea) -> None:
        super().__init__(level, fovea)
        self.fovea = fovea
        pools = len(fovea.scales) + (not fovea.endless)  # all octaves of the tail share the last
        self.pools = nn.ModuleList(
            GroupPool(fovea.ratio(j), level.kv_heads, level.head_dim) for j in range(1, pools + 1)
        )

    def make_buffer(self, stride: int, layers: int) -> FoveaBuffer:
        return FoveaBuffer(self.fovea, stride=stride, width=self.head_dim, heads=self.kv_heads, layers=layers)

    def prepare(
        self, units: Units, buffer: Buffer | None, place: Place | None, rotary: Rotary, x: Tensor, dtype: torch.dtype
    ) -> FoveaMetadata:
        rotation, plan = rotary(units, x), None
        if isinstance(buffer, FoveaBuffer) and units.size == 1 and not units.begins_block(self.fovea.block):
            mask = buffer.one_unit_mask(units, x.device, dtype)
        else:
            plan = Planner(self.fovea, units, buffer, x.device).plan(rotary, dtype)
            mask = plan.mask.expand(len(x), -1, -1, -1).flatten(0, 1)[:, None]
        return FoveaMetadata(units=units, buffer=buffer, place=place, rotation=rotation, mask=mask, plan=plan)

    def forward(self, qkv: Tensor, metadata: Metadata, layer: int) -> Tensor:
        assert isinstance(metadata, FoveaMetadata)
        buffer, place = metadata.buffer, metadata.place
        q, k, v = self.split(qkv, metadata)
        new = k, v, qkv[:, :, self.heads : self.heads + self.kv_heads]
        if metadata.plan is not None:
            return self._blocks(q, new, metadata, metadata.plan, layer)
        assert buffer is not None and place is not None
        buffer.write(layer, place, *new)
        keys, values, _ = buffer.read(layer, metadata.units, buffer.capacity)
        return self.attend(q, keys, values, mask=metadata.mask)

    def _blocks(self, q: Tensor, new: Parts, metadata: FoveaMetadata, plan: Plan, layer: int) -> Tensor:
        units, buffer, W = metadata.units, metadata.buffer, self.fovea.block
        held: Parts | None = None
        if buffer is not None and not units.fresh:
            held = tuple(part.transpose(1, 2) for part in buffer.read(layer, units, buffer.capacity))
        near = self._near(new, held, units, plan)
        far, made = self._groups(near, held, plan, units.aligned)
        if buffer is not None and metadata.place is not None:
            buffer.write(layer, metadata.place, *new)
            for region, groups in zip(plan.regions, made, strict=True):
                if region.place is not None:
                    buffer.write(layer, region.place, *groups)
        S = q.shape[1]
        if units.aligned:
            q = pad(q, (0, 0, 0, 0, plan.offset, plan.n * W - plan.offset - S))
            return self._attend_blocks(q, near, far, plan, metadata)[:, plan.offset : plan.offset + S]
        column = torch.arange(plan.n * W, device=q.device) - plan.offset
        out = self._attend_blocks(_take(q, column.clamp(0, S - 1)), near, far, plan, metadata)
        return _take(out, plan.offset + torch.arange(S, device=q.device))

    def _near(self, new: Parts, held: Parts | None, units: Units, plan: Plan) -> Parts:
        """Each [R, (n + 2)·W, K, d], two blocks before the first query's block on, at the same column in all rows."""
        W = self.fovea.block
        if plan.near is not None:
            both = new if held is None else tuple(torch.cat(pair, 1) for pair in zip(held, new, strict=True))
            return tuple(_take(part, plan.near) for part in both)
        before = 2 * W + plan.offset - plan.known
        behind = (plan.n + 2) * W - before - plan.known - units.size
        if held is not None and plan.known_slots is not None:
            old = tuple(part.index_select(1, plan.known_slots) for part in held)
            new = tuple(torch.cat(pair, 1) for pair in zip(old, new, strict=True))
        return tuple(pad(part, (0, 0, 0, 0, before, behind)) for part in new)

    def _groups(self, near: Parts, held: Parts | None, plan: Plan, aligned: bool) -> tuple[list[Parts], list[Parts]]:
        """Keys and values of all groups that may be seen, laid out as ``plan.far`` is; the new ones of each region."""
        items = [held] if held is not None else []
        made: list[Parts] = []
        for j, region in enumerate(plan.regions, 1):
            pool = cast(GroupPool, self.pools[min(j, len(self.pools)) - 1])
            raw, value = self._members(j, region, near, items, made, plan, aligned)
            raw, value = pool(raw[:, : region.made * pool.members], value[:, : region.made * pool.members])
            groups: Parts = (rotate(raw + pool.offset.to(raw.dtype), *region.rotation), value, raw)
            made.append(groups)
            items.append(groups)
        if held is None or not made:
            return [groups[:2] for groups in made], made
        return [tuple(torch.cat([groups[part] for groups in items], 1) for part in (0, 1))], made

    def _members(
        self, j: int, region: Region, near: Parts, items: list[Parts], made: list[Parts], plan: Plan, aligned: bool
    ) -> Parts:
        """Keys before rotation and values of what the new groups of a region are made of."""
        if j == 1:
            if aligned:
                return tuple(part[:, plan.unpooled : plan.unpooled + plan.leaving] for part in (near[2], near[1]))
            column = plan.unpooled + torch.arange(plan.leaving, device=near[0].device)
            return tuple(_take(part, column.clamp(max=near[0].shape[1] - 1)) for part in (near[2], near[1]))
        if region.members is None:
            return made[-1][2], made[-1][1]
        return tuple(_take(torch.cat([parts[part] for parts in items], 1), region.members) for part in (2, 1))

    def _attend_blocks(self, q: Tensor, near: Parts, far: list[Parts], plan: Plan, metadata: Metadata) -> Tensor:
        mask = cast(Tensor, metadata.mask)
        W, n, R = self.fovea.block, plan.n, len(q)
        q_RnWHd = q.unflatten(1, (n, W))
        blocks = [part[:, W:].unflatten(1, (n + 1, W)) for part in near[:2]]
        grad = torch.is_grad_enabled()
        at_once = n if grad else max(1, GATHERED_KEYS // (R * mask.shape[-1]))
        regather = grad and not metadata.checkpointed and not torch.compiler.is_compiling()
        regather = regather and not torch._C._are_functorch_transforms_active()  # whose tensors have no storage
        outs = []
        for b in range(0, n, at_once):
            m = min(n, b + at_once) - b

            def gather(part: int, b: int = b, m: int = m) -> Tensor:
                near_RmLKd = blocks[part][:, b : b + m], blocks[part][:, b + 1 : b + m + 1]
                here = [(groups[part], index[:, b : b + m]) for groups, index in zip(far, plan.far, strict=True)]
                far_RmcKd = [_take(keys, index.flatten(1)).unflatten(1, index.shape[1:]) for keys, index in here]
                return torch.cat((*near_RmLKd, *far_RmcKd), 2).flatten(0, 1).transpose(1, 2)

            here = mask if m == n else mask.unflatten(0, (R, n))[:, b : b + m].flatten(0, 1)
            keys, values = gather(0), gather(1)
            with _gathered_again(gather, keys, values) if regather else contextlib.nullcontext():
                out = self.attend(q_RnWHd[:, b : b + m].flatten(0, 1), keys, values, mask=here)
            outs.append(out.unflatten(0, (R, m)).flatten(1, 2))
        return outs[0] if len(outs) == 1 else torch.cat(outs, 1)


def _take(part: Tensor, index: Tensor) -> Tensor:
    """part[r, index[r]] for every row, [R, m, …]; ``index`` is [1 or R, m]."""
    if len(index) == 1:
        return part.index_select(1, index[0])
    return part[torch.arange(len(part), device=part.device)[:, None], index]


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
