"""The order in which a run sees its data."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch.utils.data import Sampler


class ShuffledEpochs(Sampler[int]):
    """``draws`` indices: all of ``range(size)`` in a random order, then all of them in another, and so on.

    Epochs run into each other inside a batch, so every batch is full, also where the data is smaller than a batch. The
    order follows from ``size`` and ``seed`` alone: a longer run begins as a shorter one did.
    """

    def __init__(self, *, size: int, draws: int, seed: int) -> None:
        self.size = size
        self.draws = draws
        self.seed = seed

    def __len__(self) -> int:
        return self.draws

    def part(self, start: int, count: int) -> list[int]:
        """The draws from number ``start`` on, ``count`` of them."""
        return list(islice(self, start, start + count))

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        for start in range(0, self.draws, self.size):
            yield from torch.randperm(self.size, generator=generator)[: self.draws - start].tolist()
