"""Where an item lies in a buffer: one map from positions in a row to slots, which everything that reads or writes asks.

Items are numbered from a row's own first. A map keeps all of them, or some first ones (pinned) and the last few (a
ring, whose slots are used again). Arithmetic, the same for a whole number, an array and a tensor of positions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveate.spec import Fovea


@dataclass(frozen=True, kw_only=True)
class Slots:
    """All items in order, or (``keep``) the first ``pinned`` and the last ``keep`` of the others.

    Attributes:
        keep: items that a later call may need; None: all of them.
        pinned: first items that are never overwritten.
        slack: items more than needed that a ring remembers, so that as many can be taken back.
        multiple: a ring's length is a multiple of this, so that a group of that many never wraps around its end.
    """

    keep: int | None = None
    pinned: int = 0
    slack: int = 0
    multiple: int = 1

    @property
    def ring(self) -> int | None:
        """Slots after the pinned ones that start over."""
        return None if self.keep is None else -(-(self.keep + self.slack) // self.multiple) * self.multiple

    @property
    def bound(self) -> int | None:
        """The most slots there will ever be; None: no bound."""
        return None if self.ring is None else self.pinned + self.ring

    def of(self, position: Any) -> Any:
        """The slot of each position."""
        ring = self.ring
        if ring is None:
            return position
        if not self.pinned:
            return position % ring
        # the ring begins behind the pinned slots: below the bound a slot is its position
        past = position - self.pinned
        return position - past // ring * ring * (past >= 0)

    def size(self, items: int) -> int:
        """Slots for rows of up to ``items`` items."""
        return items if self.bound is None else min(items, self.bound)

    def held(self, items: int) -> np.ndarray:
        """The positions that a row of ``items`` items still holds, ascending."""
        first = 0 if self.ring is None else max(items - self.ring, min(self.pinned, items))
        return np.concatenate((np.arange(min(self.pinned, first)), np.arange(first, items)))

    def written(self, count: int) -> int:
        """How many of the last of ``count`` new items a ring has room for; pinned ones are not among them."""
        return count if self.ring is None else min(count, self.ring)

    def can_shorten(self, furthest: int, shorter: int) -> bool:
        """Whether a row that once had ``furthest`` items can go on from ``shorter``: nothing needed is overwritten."""
        if self.ring is None or self.keep is None:
            return True
        oldest_held = max(furthest - self.ring, self.pinned)
        # the next item pushes the oldest of several out anyway
        oldest_needed = max(shorter - self.keep + (self.keep > 1), self.pinned)
        return oldest_held <= oldest_needed

    def with_slack(self, items: int) -> Slots:
        return replace(self, slack=items)

    def moves(self, items: int, to: Slots) -> tuple[np.ndarray, np.ndarray]:
        """From and to which slots everything that a row of ``items`` items holds moves, when it moves to ``to``."""
        held = self.held(items)
        return self.of(held), to.of(held)

    def position(self, newest: Tensor, slot: Tensor) -> Tensor:
        """The position that each slot holds where ``newest`` was written last; negative if it holds none."""
        held = torch.where(slot <= newest, slot, -1)
        if self.ring is None:
            return held
        late = newest - (newest - slot) % self.ring
        return torch.where(slot < self.pinned, held, torch.where(late >= self.pinned, late, -1))

    def grown(self, need: int, capacity: int, room: int) -> int:
        """Slots to allocate, of which ``need`` are needed now and there were ``capacity``; in multiples of ``room``."""
        grown = -(-max(need + room, capacity * 3 // 2) // room) * room
        return grown if self.bound is None else min(grown, self.bound)


@dataclass(frozen=True, kw_only=True)
class RegionSlots:
    """The slots of a fovea: a ring of units, then a ring of groups for each region.

    Under ``tail="keep"`` the last region is no ring: it keeps every group and is the one that grows.
    """

    fovea: Fovea
    slack: int = 0
    pinned = 0
    bound = None

    @property
    def ring(self) -> int:
        """Slots of units."""
        return 2 * self.fovea.block + self.slack

    def ring_of(self, j: int) -> int | None:
        """Slots of region j, of units if j is 0; None: all its groups."""
        if j == 0:
            return self.ring
        if self.fovea.endless and j == len(self.fovea.scales):
            return None
        more = -(-self.slack // self.fovea.scale(j)) + self.fovea.ratio(j + 1) if self.slack else 0
        return self.fovea.groups + more

    def base(self, j: int) -> int:
        """First slot of region j."""
        return sum(self.ring_of(i) or 0 for i in range(j))

    def of(self, position: Any) -> Any:
        return position % self.ring

    def of_group(self, j: int, group: Any) -> Any:
        ring = self.ring_of(j)
        return self.base(j) + (group if ring is None else group % ring)

    def size(self, items: int) -> int:
        if items <= 2 * self.fovea.block:
            return items  # there is no group yet
        regions = self.fovea.regions(items)
        if self.fovea.endless:
            return self.base(regions) + items // self.fovea.scales[-1]
        return self.base(regions + 1)

    def grown(self, need: int, capacity: int, room: int) -> int:
        grown = Slots().grown(need, capacity, room)
        if need <= 2 * self.fovea.block:
            return min(grown, self.ring)
        return grown if self.fovea.endless else need

    def written(self, count: int) -> int:
        return min(count, self.ring)

    def can_shorten(self, furthest: int, shorter: int) -> bool:
        """The block of the shorter row's last unit must still be open, or slack must reach back to it."""
        block = self.fovea.block
        same_block = (furthest - 1) // block <= max(shorter - 1, 0) // block
        return same_block or furthest - shorter <= self.slack

    def with_slack(self, items: int) -> RegionSlots:
        return replace(self, slack=items)

    def moves(self, items: int, to: RegionSlots) -> tuple[np.ndarray, np.ndarray]:
        held = np.arange(max(items - self.ring, 0), items)
        source, target = [self.of(held)], [to.of(held)]
        regions = self.fovea.regions(items)
        ends = self.fovea.ends(max(items - 1, 0) // self.fovea.block, regions)
        for j in range(1, regions + 1):
            made, ring = ends[j - 1] // self.fovea.scale(j), self.ring_of(j)
            groups = np.arange(0 if ring is None else max(made - ring, 0), made)
            source.append(self.of_group(j, groups))
            target.append(to.of_group(j, groups))
        return np.concatenate(source), np.concatenate(target)
