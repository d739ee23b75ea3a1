"""The batches of a run on a corpus: what every step reads, and this process's part of it.

Legend: B sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from foveate.data.corpus import Blocks
from foveate.train.distributed import World
from foveate.train.order import ShuffledEpochs
from foveate.train.settings import TrainSettings
from foveate.train.shares import SharedBatches


class BlockLoader:
    """A process's parts of the batches, drawn from a corpus in the order that the seed gives."""

    def __init__(self, blocks: Blocks, settings: TrainSettings, world: World) -> None:
        self.blocks = blocks
        self.settings = settings
        self.world = world
        self.order = ShuffledEpochs(size=len(blocks), draws=settings.steps * settings.batch, seed=settings.seed)

    def batches(self, step: int) -> Iterator[dict[str, Tensor]]:
        """``input_ids`` and ``labels`` [B, T] of each part of the steps after ``step``; ``number`` [B] where wanted."""
        settings = self.settings
        loader = DataLoader(
            Numbered(self.blocks) if settings.teacher_top else self.blocks,
            batch_sampler=SharedBatches(
                self.order, batch=settings.batch, parts=settings.accumulate, world=self.world, skip=step
            ),
            collate_fn=stack,
            num_workers=settings.workers,
            pin_memory=torch.cuda.is_available() and settings.device != "cpu",
            generator=torch.Generator(),  # or it would draw from the one that dropout draws from
        )
        return iter(loader)

    def state(self) -> None:
        """Nothing: what a step reads follows from its number."""

    def restore(self, state: None) -> None:
        pass

    def where(self, step: int) -> list[str]:
        """What a step has read, sequence by sequence, for a person."""
        batch = self.settings.batch
        return [self.blocks.where(index) for index in self.order.part((step - 1) * batch, batch)]


class Numbered(Dataset[dict[str, Tensor]]):
    """The same sequences, each with its number."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {**self.blocks[index], "number": torch.tensor(index)}


def stack(items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Sequences [T] to a batch [B, T]; one tensor where the labels are the inputs themselves."""
    batch = {name: torch.stack([item[name] for item in items]) for name in items[0] if name != "labels"}
    if all(item["labels"] is item["input_ids"] for item in items):
        return batch | {"labels": batch["input_ids"]}
    return batch | {"labels": torch.stack([item["labels"] for item in items])}
