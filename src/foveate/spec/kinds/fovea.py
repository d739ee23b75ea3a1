"""The fovea: near units one by one, far ones as ever coarser groups, and the geometry of it.

Block b of queries sees units from ``(b - 1) * block`` on one by one; before that groups of ``scales[0]`` units, then of
``scales[1]``, and so on. Region j, the groups of the jth scale, reaches from ``ends[j]`` to ``ends[j - 1]``; every
boundary is a multiple of the next scale, so that the groups behind it are whole.

The geometry is arithmetic that means the same for a whole number, an array and a tensor of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from foveate.errors import FoveateError, shown
from foveate.spec.checks import MAX_REACH, check_count
from foveate.spec.kinds.base import SAMPLES, Attention

if TYPE_CHECKING:
    from foveate.spec.walk import Level

TAILS = ("keep", "log")
OCTAVE = 4  # how much coarser each further scale is with tail=log
MAX_SCALE = 65_536

Whole = TypeVar("Whole", int, Any)  # int, numpy array or torch tensor


@dataclass(frozen=True, kw_only=True)
class Fovea(Attention):
    """Sees its own block of ``block`` units and the one before it sharply, then ``groups`` groups at each of ``scales``
    (units per group); after the last scale comes one four times coarser, and so on (``tail="log"``: cost and memory
    grow with the logarithm of the context), or the last scale keeps all its groups (``tail="keep"``).
    """

    block: int = 64
    groups: int = 16
    scales: tuple[int, ...] = (4, 16, 64)
    tail: str = "log"

    name = "fovea"
    example = "fovea or fovea64,groups=16"
    marks = ("░", "-")
    opacity = 0.4
    module = "foveate.model.fovea:FoveaAttention"
    vectors = 3  # and the key before rotation, of which groups are pooled

    def __post_init__(self) -> None:
        if not isinstance(self.scales, list | tuple):
            raise FoveateError(f"fovea: scales is {shown(self.scales)}; write several, such as (4, 16, 64)")
        object.__setattr__(self, "scales", tuple(self.scales))
        check_count("fovea", "block", self.block, 1, MAX_REACH)
        check_count("fovea", "groups", self.groups, 1, MAX_REACH)
        if self.tail not in TAILS:
            raise FoveateError(f"fovea: tail is {shown(self.tail)}; write tail=keep or tail=log")
        if not self.scales:
            raise FoveateError("fovea: scales is empty; write for example scales=4/16/64")
        for scale in self.scales:
            check_count("fovea", "scale", scale, 2, MAX_SCALE)
        for fine, coarse in pairwise(self.scales):
            if coarse % fine:
                raise FoveateError(f"fovea: scale {coarse} must be a multiple of the scale {fine} before it")
        if len(set(self.scales)) != len(self.scales):
            raise FoveateError(f"fovea: scales {shown(self.scales)} repeat; each must be larger than the one before")
        if self.block % self.scales[0]:
            raise FoveateError(
                f"fovea: block {self.block} must be a multiple of the finest scale {self.scales[0]}, "
                f"so that groups are whole when they leave it"
            )
        ratios = [coarse // fine for fine, coarse in pairwise(self.scales)] + [OCTAVE] * (self.tail == "log")
        if self.groups < max(ratios, default=1):
            raise FoveateError(
                f"fovea: groups is {self.groups}; it must be at least {max(ratios)}, the ratio of neighbouring scales, "
                f"so that each scale is seen and groups are whole when they join a coarser one"
            )

    @classmethod
    def read(cls, text: str) -> Fovea | None:
        head, *options = text.split(",")
        if not (match := re.fullmatch(r"fovea([0-9]{0,10})", head)):
            return None
        chosen: dict[str, Any] = {"block": int(match[1])} if match[1] else {}
        for option in options:
            name, _, value = option.partition("=")
            if name == "groups" and re.fullmatch("[0-9]{1,10}", value):
                chosen["groups"] = int(value)
            elif name == "scales" and re.fullmatch("[0-9]{1,10}(/[0-9]{1,10})*", value):
                chosen["scales"] = tuple(map(int, value.split("/")))
            elif name == "tail" and value in TAILS:
                chosen["tail"] = value
            else:
                raise FoveateError(
                    f"fovea option {shown(option)} is unknown; write groups=16, scales=4/16/64, tail=keep or tail=log"
                )
        return cls(**chosen)

    def __str__(self) -> str:
        default = Fovea()
        text = "fovea" if self.block == default.block else f"fovea{self.block}"
        if self.groups != default.groups:
            text += f",groups={self.groups}"
        if self.scales != default.scales:
            text += ",scales=" + "/".join(map(str, self.scales))
        return text if self.tail == default.tail else f"{text},tail={self.tail}"

    # where it looks

    @property
    def endless(self) -> bool:
        """Whether the last scale keeps all its groups."""
        return self.tail == "keep"

    def scale(self, j: int) -> int:
        """Units per group of region j; region 0 is the sharp part."""
        if j == 0:
            return 1
        last = len(self.scales)
        return self.scales[j - 1] if j <= last else self.scales[-1] * OCTAVE ** (j - last)

    def ratio(self, j: int) -> int:
        """Groups of region j - 1 (units, if j is 1) that make one group of region j."""
        return self.scale(j) // self.scale(j - 1)

    def sharp_from(self, block: Whole) -> Whole:
        """The first unit that queries of ``block`` see one by one."""
        return (block - 1) * (block > 0) * self.block

    def ends(self, block: Whole, regions: int) -> list[Whole]:
        """``ends[j]`` for j = 0 … regions: where region j stops for queries of ``block``, in units."""
        ends = [self.sharp_from(block)]
        for j in range(1, regions + 1):
            if self.endless and j == len(self.scales):
                ends.append(block * 0)
            else:
                coarser, end = self.scale(j + 1), ends[-1] - self.groups * self.scale(j)
                ends.append(-(-end * (end > 0) // coarser) * coarser)
        return ends

    def regions(self, units: int) -> int:
        """Regions that a row of ``units`` units has groups in, the scales listed at least."""
        regions = len(self.scales)
        while not self.endless and self.ends(max(units - 1, 0) // self.block, regions)[-1] > 0:
            regions += 1
        return regions

    def seen(self, t: int) -> list[tuple[int, int]]:
        end = max(t // self.block - 1, 0) * self.block
        keys = [(unit, 1) for unit in range(end, t + 1)]
        j = 0
        while end:
            j += 1
            scale, coarser = self.scale(j), self.scale(j + 1)
            begin = max(end - self.groups * scale, 0)
            begin = 0 if self.endless and j == len(self.scales) else -(-begin // coarser) * coarser
            keys = [(group, scale) for group in range(begin, end, scale)] + keys
            end = begin
        return keys

    # what it costs

    def groups_seen(self, units: int) -> list[int]:
        """Groups of each region that the newest of ``units`` units sees."""
        regions = self.regions(units)
        ends = self.ends(max(units - 1, 0) // self.block, regions)
        return [(ends[j - 1] - ends[j]) // self.scale(j) for j in range(1, regions + 1)]

    def keys_read(self, units: int) -> int:
        return units - self.sharp_from(max(units - 1, 0) // self.block) + sum(self.groups_seen(units))

    def items_kept(self, units: int) -> int:
        """Rings of units and of groups, but for the last scale where it keeps all groups."""
        if units <= 2 * self.block:
            return units
        rings, every = self.regions(units), 0
        if self.endless:
            rings, every = rings - 1, units // self.scales[-1]
        return 2 * self.block + self.groups * rings + every

    def parameters(self, head_dim: int) -> int:
        """Per scale a bias for each member of a group, a gate, an offset; the octaves of the tail share the last."""
        pools = len(self.scales) + (not self.endless)
        return sum(self.ratio(j) + 2 * head_dim for j in range(1, pools + 1))

    def saved(self, level: Level, units: int) -> int:
        # keys gathered for a block are gathered again for the backward pass; kept is what they are gathered from
        padded = (-(-units // self.block) + 2) * self.block
        items = padded + sum(padded // scale for scale in self.scales)
        return units * 2 * level.heads * level.head_dim + 3 * level.kv_heads * level.head_dim * items if units else 0

    def saved_masks(self, units: int) -> tuple[int, int]:
        blocks = -(-units // self.block)
        # how many groups a block sees goes up and down with a short period as blocks go by
        lasts = [self.groups_seen(units - i * self.block) for i in range(min(blocks, SAMPLES))]
        width = max(map(len, lasts), default=0)
        keys = sum(max(seen[j] if j < len(seen) else 0 for seen in lasts) for j in range(width))
        return 0, blocks * self.block * (2 * self.block + keys)
