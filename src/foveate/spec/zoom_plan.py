"""What a query of a zoom layer reads: near text and sinks as they are, far text coarsely, opened where it looks.

Positions count a row's own tokens from 0. The first ``sinks`` are always read; those after them are *slots*, counted
from 0 again. For the query at position p the slots below ``far(p)`` are far, a multiple of ``step``. Far slots lie in
blocks; the complete ones are sorted, what is left of far text is the *tail*, whose groups are contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foveate.errors import FoveateError, shown

LONGEST_BLOCK = 1 << 15  # a slot's old place in its block is kept in 16 bits


@dataclass(frozen=True, kw_only=True)
class ZoomPlan:
    """How a layer zooms. Sizes and budgets are in keys, or in groups of keys, of one key head.

    Args:
        near: at least so many of the newest keys are read as they are, the query's own included.
        sinks: so many of the first keys are always read.
        block: so many far keys at a time are sorted.
        groups: sizes of the nested groups of a block, each a divisor of the one before.
        keep: of the blocks and of every size of group but the smallest, how many are looked into; ``None``: all.
        opened: how many of the smallest groups are read key by key; one number per key head, if they differ.
        spread: a group's score counts how far its keys lie from their mean, so that one unlike the others is found:
            so many halves of the square of the scaled query times the mean variance of a channel; 0: not counted.
        thumbnails: closed groups up to this size are read as one key, ``log n`` above it, and one value; 0: none.
    """

    near: int = 128
    sinks: int = 4
    block: int = 512
    groups: tuple[int, ...] = (64, 16, 4)
    keep: tuple[int | None, ...] = (None, 32, 32)
    opened: int | tuple[int, ...] = 32
    thumbnails: int = 16
    spread: float = 0.0

    def __post_init__(self) -> None:
        for name in ("groups", "keep"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if isinstance(self.opened, list):
            object.__setattr__(self, "opened", tuple(self.opened))
        for name, least in (("near", 1), ("sinks", 0), ("block", 2), ("thumbnails", 0)):
            _whole(name, getattr(self, name), least)
        if not isinstance(self.spread, (int, float)) or not 0 <= self.spread < 1e6:
            raise FoveateError(f"zoom: spread={shown(self.spread)} must be a number of at least 0")
        for budget in self.opened if isinstance(self.opened, tuple) else (self.opened,):
            _whole("opened", budget, 0)
        if self.opened == ():
            raise FoveateError("zoom: opened=() names no key head; give one number, or one per key head")
        if self.block > LONGEST_BLOCK:
            raise FoveateError(f"zoom: block={self.block} is more than {LONGEST_BLOCK}")
        if not self.groups:
            raise FoveateError("zoom: groups=() has no size; give at least one, as in groups=(4,)")
        for above, size in zip(self.levels, self.groups, strict=False):
            _whole("groups", size, 1)
            if above % size or above == size or (above // size) & (above // size - 1):
                raise FoveateError(
                    f"zoom: groups={self.groups} in blocks of {self.block}: {above} is not {size} doubled some times"
                )
        if len(self.keep) != len(self.groups):
            raise FoveateError(
                f"zoom: keep={shown(self.keep)} needs {len(self.groups)} numbers: one for the blocks "
                f"and one for every size of groups={self.groups} but the smallest"
            )
        for kept in self.keep:
            if kept is not None:
                _whole("keep", kept, 1)

    @property
    def levels(self) -> tuple[int, ...]:
        """Sizes of the nodes of a block's tree, the block first."""
        return (self.block, *self.groups)

    @property
    def step(self) -> int:
        """Far text grows by so many slots at once: the size of the tail's groups."""
        return self.groups[-2] if len(self.groups) > 1 else self.groups[-1]

    @property
    def most_opened(self) -> int:
        return max(self.opened) if isinstance(self.opened, tuple) else self.opened

    def far(self, position: int) -> int:
        """How many slots are far for the query at ``position``."""
        return max(0, (position + 1 - self.near - self.sinks) // self.step * self.step)

    def blocks(self, position: int) -> int:
        """How many blocks are sorted for the query at ``position``."""
        return self.far(position) // self.block

    def alike(self, position: int) -> int:
        """How many queries from ``position`` on, itself included, have as many sorted blocks as it has."""
        return (self.blocks(position) + 1) * self.block + self.near + self.sinks - 1 - position

    def reads(self, position: int) -> tuple[int, int]:
        """Keys read, and summaries read to find them, by the query at ``position``, per key head.

        A summary that is scored counts once, whether it then stands as a thumbnail or not.
        """
        far, blocks = self.far(position), self.blocks(position)
        keys = position + 1 - far
        tail = far - blocks * self.block
        kept: Sequence[int | None] = (*self.keep, self.most_opened)
        summaries, nodes = 0, blocks
        for depth, size in enumerate(self.levels):
            if depth:
                nodes *= self.levels[depth - 1] // size
            if size == self.step:
                nodes += tail // size
            limit = kept[depth]
            if limit is not None and nodes > limit:
                summaries += nodes
                nodes = limit
        return keys + nodes * self.groups[-1], summaries


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise FoveateError(f"zoom: {name}={shown(value)} must be a whole number of at least {least}")
