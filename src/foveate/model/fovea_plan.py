"""Where a fovea looks in one call: which groups each block of queries sees, which are new, and where they are kept.

All units are those of the run's level, counted from a row's first token. Numbers are Python's for aligned rows and
tensors on the device, [R, 1], for others; shapes follow from bounds that hold for every row.

Shape legend: R rows (1 if all rows are aligned), n blocks of W units, c groups of a region that a block sees at most, m
new groups of a region at most, C slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveate.model.attention import additive
from foveate.model.buffer import Buffer, Place
from foveate.model.clock import Units
from foveate.model.rotary import HALVES, Rotary, Rotation
from foveate.model.slots import RegionSlots
from foveate.spec import Fovea


@dataclass(frozen=True, kw_only=True)
class Region:
    """The groups of one scale in one call.

    Attributes:
        made: new groups of a row at most.
        members: [1 or R, m · ratio] where, among slots and new groups so far, the groups of the region before are that
            make the new ones; None: they are the first new ones of that region.
        rotation: of the new groups.
        place: where new groups are kept.
    """

    made: int
    members: Tensor | None
    rotation: Rotation
    place: Place | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Index arithmetic of one call for several units per row, or for a unit that opens a block.

    Attributes:
        n: blocks of queries.
        offset: of the first new unit in its block.
        unpooled: the first unit that is in no group yet, counted from two blocks before the first query's.
        leaving: units of a row, at most, that leave the sharp part.
        known: units before the call that are still needed (aligned rows), and ``known_slots`` where they are.
        near: [R, (n + 2)·W] where, among slots and new units, the units are from two blocks before the first query's
            block on; None for aligned rows.
        far: [1 or R, n, c] where the groups are that a block sees: of each region among its new ones, or, where
            something is held, of all regions in one, among slots and all new groups.
        mask: [1 or R, n, W, 2·W + sum of c], to be added.
    """

    n: int
    offset: Any
    unpooled: Any
    leaving: int
    known: int
    known_slots: Tensor | None
    near: Tensor | None
    regions: tuple[Region, ...]
    far: tuple[Tensor, ...]
    mask: Tensor


class Planner:
    """Makes the plan for new units that follow what ``buffer`` holds, which has room for them."""

    def __init__(self, fovea: Fovea, units: Units, buffer: Buffer | None, device: torch.device) -> None:
        self.fovea, self.units, self.buffer, self.device = fovea, units, buffer, device
        W, S = fovea.block, units.size
        aligned = units.aligned
        start: Any = units.first if aligned else units.starts(device)
        self.slots: RegionSlots = buffer.slots if buffer is not None else RegionSlots(fovea=fovea)
        self.held = buffer.capacity if buffer is not None and not units.fresh else 0  # slots that may be looked at
        self.start = start
        end: Any = self.start + S if aligned else self.start + units.counts(device)
        self.first: Any = self.start // W
        last: Any = (end - 1) // W
        old: Any = (self.start - 1) * (self.start > 0) // W  # the block of the last unit read before
        self.n: int = (start % W + S - 1) // W + 1 if aligned else (S + W - 2) // W + 1
        self.longest: int = start + S if aligned else units.longest
        regions = fovea.regions(self.longest)
        blocks = torch.arange(self.n, device=device)[None] + self.first
        self.blocks = blocks if aligned else torch.minimum(blocks, last)
        self.old_ends, self.last_ends = fovea.ends(old, regions), fovea.ends(last, regions)
        self.ends = fovea.ends(self.blocks, regions)
        self.known: int = start - fovea.sharp_from(old) if aligned and self.held else 0
        self.counts = self._counts(regions)

    def _counts(self, regions: int) -> list[tuple[int, int]]:
        """Of each region: new groups, and groups that a block sees, of a row at most; without regions of neither."""
        fovea = self.fovea
        counts: list[tuple[int, int]] = []
        if self.units.aligned and not torch.compiler.is_compiling():
            ends = fovea.ends(np.arange(self.n) + self.first, regions)
            for j in range(1, regions + 1):
                made: int = (self.last_ends[j - 1] - self.old_ends[j - 1]) // fovea.scale(j)
                counts.append((made, int((ends[j - 1] - ends[j]).max()) // fovea.scale(j)))
        else:
            leaving = -(-self.units.size // fovea.block) * fovea.block
            for j in range(1, regions + 1):
                scale, coarser = fovea.scale(j), fovea.scale(j + 1)
                most = self.longest // scale
                ring = fovea.endless and j == len(fovea.scales)
                counts.append((min(leaving // scale, most), most if ring else min(fovea.groups, most)))
                leaving = -(-leaving // coarser) * coarser
        while counts and counts[-1] == (0, 0):
            counts.pop()
        return counts

    def plan(self, rotary: Rotary, dtype: torch.dtype) -> Plan:
        fovea, W, device = self.fovea, self.fovea.block, self.device
        regions: list[Region] = []
        far: list[Tensor] = []
        visible = [self._near_visible()]
        base = self.held  # where the new groups of a region stand, among slots and new groups
        finer = (0, 0)  # of the region before: its first new group, and where that stands
        for j, (made, seen) in enumerate(self.counts, 1):
            scale, ratio = fovea.scale(j), fovea.ratio(j)
            fresh = self.old_ends[j - 1] // scale
            members = None
            if j > 1 and self.held:
                group = torch.arange(made * ratio, device=device)[None] + fresh * ratio
                members = self._locate(j - 1, group, *finer, base)
            group = torch.arange(made, device=device)[None] + fresh
            regions.append(
                Region(
                    made=made,
                    members=members,
                    rotation=rotary.at_halves(group * (scale * HALVES) + (scale - 1) * HALVES // 2, dtype),
                    place=self._place(j, group) if made else None,
                )
            )
            low, high = self.ends[j] // scale, self.ends[j - 1] // scale
            column = torch.arange(seen, device=device)
            shown = column < (high - low)[..., None]
            at = self._locate(j, low[..., None] + column, _over(fresh), base, base + made)
            far.append(torch.where(shown, at, 0))
            visible.append(shown[:, :, None].expand(-1, -1, W, -1))
            finer, base = (fresh, base), base + made * bool(self.held)
        width = max(map(len, visible))
        return Plan(
            n=self.n,
            offset=self.start % W,
            unpooled=self.old_ends[0] - (self.first - 2) * W,
            leaving=self.counts[0][0] * fovea.scale(1) if self.counts else 0,
            known=self.known,
            known_slots=self.slots.of(torch.arange(self.known, device=device) + (self.start - self.known))
            if self.units.aligned
            else None,
            near=None if self.units.aligned else self._near(),
            regions=tuple(regions),
            far=(torch.cat(far, -1),) if far and self.held else tuple(far),
            mask=additive(torch.cat([part.expand(width, -1, -1, -1) for part in visible], -1), dtype),
        )

    def _near(self) -> Tensor:
        W, S = self.fovea.block, self.units.size
        position = (self.first - 2) * W + torch.arange((self.n + 2) * W, device=self.device)
        new = (self.held + position - self.start).clamp(0, self.held + S - 1)
        return torch.where(position < self.start, self.slots.of(position.clamp(min=0)), new) if self.held else new

    def _near_visible(self) -> Tensor:
        """[1 or R, n, W, 2·W]: the block before, and of the own one what is not later."""
        W = self.fovea.block
        row, column = torch.arange(W, device=self.device)[:, None], torch.arange(2 * W, device=self.device)
        return (column <= row + W) & ((column >= W) | (self.blocks > 0)[..., None, None])

    def _locate(self, j: int, group: Tensor, fresh: Any, base: int, until: int) -> Tensor:
        """Where groups of region j stand; those from ``fresh`` on are new, and stand from ``base`` on."""
        new = (group + (base - fresh)).clamp(max=max(until - 1, 0))
        return torch.where(group < fresh, self.slots.of_group(j, group), new) if self.held else new

    def _place(self, j: int, group: Tensor) -> Place | None:
        """Where the new groups are kept: as many of the last as the region has room for, each row's own."""
        buffer, units = self.buffer, self.units
        if buffer is None:
            return None
        ring = self.slots.ring_of(j)
        rows = units.row_index(self.device)
        if rows is None:
            rows = torch.arange(len(buffer[0][0]), device=self.device)
        if units.aligned and units.full:
            first = 0 if ring is None else max(group.shape[1] - ring, 0)
            return Place(index=(rows[:, None], self.slots.of_group(j, group[:, first:])), first=first)
        end_R1 = self.start + units.counts(self.device)
        last = self.fovea.ends((end_R1 - 1) // self.fovea.block, j)[j - 1] // self.fovea.scale(j)
        kept = group < last
        if ring is not None:
            kept = kept & (group >= last - ring)
        slot = self.slots.of_group(j, group).expand_as(kept)
        return Place(index=(rows[:, None], torch.where(kept, slot, buffer.capacity)))


def _over(number: Any) -> Any:
    """[R, 1] as [R, 1, 1], to meet one number for each group of each block; a plain number as it is."""
    return number[..., None] if isinstance(number, Tensor) else number


def first_seen(fovea: Fovea, slots: RegionSlots, block: int, capacity: int, device: torch.device) -> Tensor:
    """[capacity]: the place in ``block`` from which on its units see each slot; the block's length if they never do."""
    W, low = fovea.block, fovea.sharp_from(block)
    unit = low + (torch.arange(min(slots.ring, capacity), device=device) - low) % slots.ring  # that is or will be there
    place = (unit - block * W).clamp(0, W)
    groups = [
        torch.where(shown[0], 0, W) for shown in _groups_seen(fovea, slots, block, (block + 1) * W, capacity, device)
    ]
    return _filled(torch.cat([place, *groups]), capacity, W)


def seen_slots(fovea: Fovea, slots: RegionSlots, newest_R1: Tensor, longest: int, capacity: int) -> Tensor:
    """[R, capacity]: which slots the newest unit of each row sees, once it is written."""
    device, block = newest_R1.device, newest_R1 // fovea.block
    low = fovea.sharp_from(block)
    units = (torch.arange(min(slots.ring, capacity), device=device) - low) % slots.ring <= newest_R1 - low
    return _filled(
        torch.cat([units, *_groups_seen(fovea, slots, block, longest, capacity, device)], -1), capacity, False
    )


def _groups_seen(
    fovea: Fovea, slots: RegionSlots, block: Any, longest: int, capacity: int, device: torch.device
) -> list[Tensor]:
    """Of each region's slots, [1 or R, slots], whether the group there is seen from ``block``."""
    regions = fovea.regions(longest)
    ends, seen = fovea.ends(block, regions), []
    for j in range(1, regions + 1):
        ring, left = slots.ring_of(j), capacity - slots.base(j)
        if left <= 0:
            break
        first, last = ends[j] // fovea.scale(j), ends[j - 1] // fovea.scale(j)
        distance = torch.arange(left if ring is None else min(ring, left), device=device)[None] - first
        seen.append((distance if ring is None else distance % ring) < last - first)
    return seen


def _filled(slots: Tensor, capacity: int, value: Any) -> Tensor:
    return torch.nn.functional.pad(slots, (0, capacity - slots.shape[-1]), value=value)
