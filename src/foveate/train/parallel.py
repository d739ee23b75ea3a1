"""transformers' Trainer on one process or many, the same way on every kind of device.

Trainer leaves this to accelerate, whose FSDP needs a GPU and whose data loaders need equal shares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import Trainer

from foveate.train import spread
from foveate.train.distributed import World
from foveate.train.settings import TrainSettings
from foveate.train.shares import SharedBatches
from foveate.train.state import OPTIMIZER_FILE, load_optimizer, save_optimizer
from foveate.train.streaming import StreamLoader


class ParallelTrainer(Trainer):
    """Shares out the batches and spreads the model; losses are those of the whole batch on every process.

    Checkpoints are gathered, written by rank 0 and read by all: they are those of one process.
    """

    settings: TrainSettings
    world: World
    stream: StreamLoader | None  # where the text is not all tokenised first
    gathered: tuple[dict[str, Tensor], dict[str, Any]] | None = None

    @property
    def sharding(self) -> bool:
        return self.world.size > 1 and self.settings.parallel == "fsdp"

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        if not self.sharding:  # sharding moves it part by part: whole it may not fit
            super()._move_model_to_device(model, device)

    def get_train_dataloader(self) -> Any:
        if self.stream is not None:
            return self.stream
        settings = self.settings
        batches = SharedBatches(
            self._get_train_sampler(),  # type: ignore[arg-type]
            batch=settings.batch,
            parts=settings.accumulate,
            world=self.world,
        )
        return DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=settings.workers,
            persistent_workers=settings.workers > 0,
            pin_memory=self.args.device.type == "cuda",
        )

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any
    ) -> tuple[nn.Module, Any]:
        model: nn.Module = self.model  # type: ignore[assignment]
        if self.world.size == 1:
            wrapped = model
        elif self.sharding:
            wrapped = spread.shard(model, self.world, self.args.device)
        else:
            wrapped = spread.copy_to_all(model, self.world, spread.find_unreached(model, self.settings.context))
        self.create_optimizer()  # of what the model's parameters have become
        self.optimizer = self.accelerator.prepare(self.optimizer)
        self.create_scheduler(max_steps)
        self.model_wrapped = wrapped
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        for name in ("model", "optimizer", "lr_scheduler"):
            setattr(self.callback_handler, name, getattr(self, name))
        self.callback_handler.train_dataloader = train_dataloader
        return wrapped, train_dataloader

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        # Trainer scales a process's loss so that the mean over processes is the loss of the whole batch
        return self.world.mean(super().training_step(*args, **kwargs))

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        norm = super()._clip_grad_norm(model)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def weights_are_finite(self) -> bool:
        model: nn.Module = self.model  # type: ignore[assignment]
        mine = (
            parameter.to_local() if isinstance(parameter, DTensor) else parameter for parameter in model.parameters()
        )
        return not self.world.any(not all(bool(torch.isfinite(value).all()) for value in mine))

    # checkpoints

    def gather(self) -> None:
        """Bring together what the processes hold in parts, before rank 0 writes it."""
        if self.sharding:
            self.gathered = (
                spread.whole_weights(self.model),  # type: ignore[arg-type]
                spread.whole_optimizer_state(self.optimizer),
            )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        self._save(output_dir, state_dict=None if self.gathered is None else self.gathered[0])

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        optimizer: Any = self.optimizer
        state = optimizer.state_dict() if self.gathered is None else self.gathered[1]
        save_optimizer(Path(output_dir) / OPTIMIZER_FILE, state, self.lr_scheduler)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(Path(checkpoint) / OPTIMIZER_FILE, self.optimizer, self.lr_scheduler, place=spread.like)

    def store_flos(self) -> None:
        """They are not counted; asking all processes for them would make each of them wait."""
