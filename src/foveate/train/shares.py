"""Which part of every batch a process computes. The batches themselves are the same however many share them.

Legend: B sequences of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
from torch.utils.data import Sampler

from foveate.errors import FoveateError
from foveate.train.distributed import World

Item = TypeVar("Item")


def check_shares(*, batch: int, parts: int, size: int) -> None:
    """Raise a ``FoveateError`` unless every part of a batch has a sequence for every process."""
    if batch < parts * size:
        raise FoveateError(
            f"--batch {batch} is too small for {size} processes that compute it in {parts} parts each; "
            f"give at least {parts * size}"
        )


def share(rows: Sequence[Item], part: int, *, parts: int, world: World) -> Sequence[Item]:
    """The rows of this process in one part of a batch: as many as any other's, or one more or less."""
    pieces = parts * world.size
    piece = part * world.size + world.rank
    return rows[piece * len(rows) // pieces : (piece + 1) * len(rows) // pieces]


class SharedBatches(Sampler[list[int]]):
    """The batches of ``order``, of which this process draws its rows alone: a list of indices for each part.

    The first ``skip`` batches are left out.
    """

    def __init__(self, order: Sampler[int], *, batch: int, parts: int, world: World, skip: int = 0) -> None:
        self.order = order
        self.batch = batch
        self.parts = parts
        self.world = world
        self.skip = skip

    def __len__(self) -> int:
        return (len(self.order) // self.batch - self.skip) * self.parts  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        drawn = islice(self.order, self.skip * self.batch, None)
        while rows := list(islice(drawn, self.batch)):
            for part in range(self.parts):
                yield list(share(rows, part, parts=self.parts, world=self.world))


def share_windows(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], world: World, ignored: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Of each ``world.size`` batches the one that this process scores, and how many tokens all of them score.

    Batches are inputs [B, T] and targets [B, T]. All processes get equally many, because with FSDP each must take part
    in every forward pass: where the last batches are too few, one of them is given again with nothing to score.
    """
    remaining = iter(batches)
    while together := list(islice(remaining, world.size)):
        tokens = sum(int((targets_BT != ignored).sum()) for _, targets_BT in together)
        if world.rank < len(together):
            inputs_BT, targets_BT = together[world.rank]
        else:
            inputs_BT, targets_BT = together[0][0], np.full_like(together[0][1], ignored)
        yield inputs_BT, targets_BT, tokens
