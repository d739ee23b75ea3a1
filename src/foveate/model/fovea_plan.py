"""Where a fovea looks, as integers: which groups a block of queries sees at each scale, in which slots they are kept.

All units are those of the run's level, counted from a row's first token. Block b sees units from ``(b - 1) * block``
on one by one; before that groups of ``scales[0]`` units, then of ``scales[1]``, and so on. Region j, the groups of
scale j, reaches from ``ends[j]`` to ``ends[j - 1]``; every boundary is a multiple of the next scale, so that the groups
behind it are whole.

Shape legend: R rows (1 if all rows are alike), n blocks.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from foveate.model.clock import Span
from foveate.spec import OCTAVE, Attention


def scale_at(fovea: Attention, j: int) -> int:
    """Units per group of region j = 1, 2, …; beyond the listed scales the tail goes on by octaves of 4x."""
    listed = fovea.scales
    return listed[j - 1] if j <= len(listed) else listed[-1] * OCTAVE ** (j - len(listed))


def ratio_at(fovea: Attention, j: int) -> int:
    """Groups of region j - 1 (units, if j is 1) that make one group of region j."""
    return scale_at(fovea, j) // (scale_at(fovea, j - 1) if j > 1 else 1)


def region_ends(fovea: Attention, blocks: np.ndarray, regions: int) -> list[np.ndarray]:
    """``ends[j]`` for j = 0 … regions, each like ``blocks``: where region j stops, in units."""
    ends = [np.maximum(blocks - 1, 0) * fovea.block]
    for j in range(1, regions + 1):
        if fovea.tail == "keep" and j == len(fovea.scales):
            ends.append(np.zeros_like(blocks))
        else:
            coarser = scale_at(fovea, j + 1)
            end = ends[-1] - fovea.groups * scale_at(fovea, j)
            ends.append(np.maximum(-(-end // coarser), 0) * coarser)
    return ends


def regions_for(fovea: Attention, units: int) -> int:
    """Regions that a row of ``units`` units has groups in."""
    last_block = np.array(max(units - 1, 0) // fovea.block)
    if fovea.tail == "keep":
        return len(fovea.scales)
    regions = len(fovea.scales)
    while region_ends(fovea, last_block, regions)[-1] > 0:
        regions += 1
    return regions


class Layout:
    """The slots of a fovea's tape: a ring of fine units, then a ring of groups for each region.

    Under ``tail="keep"`` the last region is no ring: it keeps every group and is the one that grows.
    """

    def __init__(self, fovea: Attention, slack: int = 0) -> None:
        self.fovea = fovea
        self.fine = 2 * fovea.block + slack
        self.slack = slack

    def ring(self, j: int) -> int | None:
        """Slots of region j, of fine units if j is 0; None: all its groups."""
        if j == 0:
            return self.fine
        if self.fovea.tail == "keep" and j == len(self.fovea.scales):
            return None
        scale = scale_at(self.fovea, j)
        return self.fovea.groups + (-(-self.slack // scale) + ratio_at(self.fovea, j + 1) if self.slack else 0)

    def base(self, j: int) -> int:
        """First slot of region j."""
        return sum(self.ring(i) or 0 for i in range(j))

    def slots(self, j: int, groups: np.ndarray) -> np.ndarray:
        ring = self.ring(j)
        return self.base(j) + (groups if ring is None else groups % ring)

    def held(self, units: int, of: Layout) -> np.ndarray:
        """The slots that ``of`` has for everything that this layout holds of a row of ``units`` units."""
        regions = regions_for(self.fovea, units)
        ends = region_ends(self.fovea, np.array(max(units - 1, 0) // self.fovea.block), regions)
        slots = [np.arange(max(units - self.fine, 0), units) % of.fine]
        for j in range(1, regions + 1):
            made, ring = int(ends[j - 1]) // scale_at(self.fovea, j), self.ring(j)
            slots.append(of.slots(j, np.arange(0 if ring is None else max(made - ring, 0), made)))
        return np.concatenate(slots)

    def size(self, units: int) -> int:
        """Slots that a row of ``units`` units fills at most."""
        regions = regions_for(self.fovea, units)
        if self.fovea.tail == "keep":
            return self.base(regions) + units // self.fovea.scales[-1]
        return self.base(regions + 1)


class Region:
    """One scale in one call: the groups at hand (kept ones, then new ones) and those each block sees.

    ``first`` [R] is the index of the first group at hand, ``kept`` [R] how many were kept from earlier calls, ``made``
    [R] how many are new. ``seen`` [R, n, c] indexes the groups at hand that a block sees, where ``visible`` says so.
    """

    def __init__(
        self, scale: int, old: list[np.ndarray], last: list[np.ndarray], blocks: list[np.ndarray], j: int
    ) -> None:
        self.scale = scale
        self.first = old[j] // scale
        self.kept = old[j - 1] // scale - self.first
        self.made = (last[j - 1] - old[j - 1]) // scale
        self.at_hand = int((self.kept + self.made).max())
        self.leaving = int(((last[j] - old[j]) // scale).max())  # these make the groups of the next region
        low = blocks[j] // scale - self.first[:, None]
        count = blocks[j - 1] // scale - blocks[j] // scale
        columns = np.arange(count.max(initial=0))
        self.visible = columns < count[..., None]
        self.seen = np.where(self.visible, low[..., None] + columns, 0)


class Plan:
    """Index arithmetic of one call for several units per row, or for a unit that opens a block."""

    def __init__(self, fovea: Attention, span: Span) -> None:
        W = fovea.block
        self.fovea = fovea
        self.start = np.atleast_1d(np.asarray(span.start, dtype=np.int64))
        self.count = np.atleast_1d(np.asarray(span.count, dtype=np.int64))
        self.end = self.start + self.count
        self.first_block = self.start // W
        self.offset = self.start - self.first_block * W  # of the first new unit in its block
        self.n = int(((self.offset + span.size - 1) // W).max()) + 1
        last_block = (self.end - 1) // W
        old_block = np.maximum(self.start - 1, 0) // W  # the block of the last unit read before
        self.fine_past = self.start - np.maximum(old_block - 1, 0) * W  # units kept from there on
        blocks = np.minimum(self.first_block[:, None] + np.arange(self.n), last_block[:, None])
        count = regions_for(fovea, int(self.end.max()))
        old, last, each = (region_ends(fovea, b, count) for b in (old_block, last_block, blocks))
        self.regions = [Region(scale_at(fovea, j), old, last, each, j) for j in range(1, count + 1)]
        while self.regions and not self.regions[-1].at_hand:
            self.regions.pop()
        self.unpooled = old[0]  # the first unit that is in no group yet
        self.leaving = int((last[0] - old[0]).max())  # units that leave the fine part in this call

    @cached_property
    def visible(self) -> np.ndarray:
        """[R, n, W, L]: may row i of a block see key l, keys being two fine blocks and then the regions' groups."""
        W, n = self.fovea.block, self.n
        row, column = np.arange(W)[:, None], np.arange(2 * W)
        blocks = self.first_block[:, None] + np.arange(n)
        fine = np.broadcast_to(column <= row + W, (len(self.start), n, W, 2 * W)) & (
            (column >= W) | (blocks > 0)[..., None, None]
        )
        groups = [np.repeat(region.visible[:, :, None], W, 2) for region in self.regions]
        return np.concatenate([fine, *groups], -1)


def visible_slots(layout: Layout, ends: np.ndarray, slots: int) -> np.ndarray:
    """[R, slots]: which slots the newest of ``ends`` [R] units sees, once it is written."""
    fovea = layout.fovea
    blocks = (ends - 1) // fovea.block
    count = regions_for(fovea, int(ends.max()))
    boundaries = region_ends(fovea, blocks, count)
    visible = np.zeros((len(ends), slots), dtype=bool)
    for j in range(count + 1):
        scale = scale_at(fovea, j) if j else 1
        first, last = boundaries[j] // scale, (boundaries[j - 1] if j else ends) // scale
        base, ring = layout.base(j), layout.ring(j)
        own = visible[:, base:] if ring is None else visible[:, base : base + ring]
        distance = np.arange(own.shape[1]) - first[:, None]
        own[:] = (distance if ring is None else distance % ring) < (last - first)[:, None]
    return visible
