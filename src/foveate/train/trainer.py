"""transformers' Trainer, made exact: whole checkpoints without pickle, the same log after resuming, bits per byte."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from foveate.errors import FoveateError
from foveate.train.build import decayed_parameters
from foveate.train.checkpoint import Checkpoints
from foveate.train.documents import Document
from foveate.train.evaluate import evaluate
from foveate.train.ledger import Ledger
from foveate.train.metrics import Metrics
from foveate.train.order import ShuffledEpochs
from foveate.train.schedule import rate, warmup_steps
from foveate.train.settings import SETTINGS_FILE, TrainSettings
from foveate.train.state import (
    OPTIMIZER_FILE,
    load_optimizer,
    process_file,
    read_process,
    restore_random_states,
    save_optimizer,
    save_process,
)


class CausalTrainer(Trainer):
    """Trains a causal language model by ``settings``, which must be resolved.

    Args:
        documents: what to validate on; empty for none.
        notes: goes into the manifest of every checkpoint.
        on_record: called with each record of the log as it is written.
        on_step: called after each step with its number.
        stop: asked after every step; once it says True the run saves a checkpoint and ends.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: TrainSettings,
        device: torch.device,
        data: Dataset[Any],
        documents: Sequence[Document],
        checkpoints: Checkpoints,
        metrics: Metrics,
        notes: Mapping[str, Any],
        on_record: Callable[[dict[str, Any]], None],
        on_step: Callable[[int], None],
        stop: Callable[[], bool],
    ) -> None:
        self.settings = settings
        self.causal_model = model
        self.tokenizer = tokenizer
        self.data = data
        self.documents = documents
        self.checkpoints = checkpoints
        self.metrics = metrics
        self.notes = notes
        self.on_record = on_record
        self.on_step = on_step
        self.stop = stop
        self.ledger = Ledger(device)
        self.evaluation_due = False
        super().__init__(
            model=model,
            args=_arguments(settings, device),
            processing_class=tokenizer,
            train_dataset=data,
            data_collator=stack,
            callbacks=[_Schedule(self)],
        )
        self.remove_callback(PrinterCallback)

    def run(self, checkpoint: Path | None = None) -> None:
        """Train to the last step, or until told to stop; from a checkpoint on, if given."""
        if checkpoint is not None:
            notes, tensors = read_process(checkpoint / process_file(self.args.process_index))
            self.ledger.restore(notes["ledger"], tensors)
            self.evaluation_due = notes["evaluation_due"]
        with contextlib.suppress(_StopEvaluationError):
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    @property
    def finished(self) -> bool:
        return self.state.global_step >= self.settings.steps and not self.evaluation_due

    # what is computed

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        size = len(self.data)  # type: ignore[arg-type]
        draws = self.settings.steps * self.settings.batch
        return ShuffledEpochs(size=size, draws=draws, seed=self.settings.seed)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return decayed_parameters(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LRScheduler:
        settings, steps = self.settings, self.settings.steps
        warmup = warmup_steps(settings.warmup, steps)
        factor = functools.partial(rate, kind=settings.schedule, steps=steps, warmup=warmup, final=settings.final_lr)
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)  # type: ignore[arg-type]
        return self.lr_scheduler

    def compute_loss_context_manager(self) -> contextlib.ExitStack:
        # not through accelerate, which would copy all logits to fp32 on their way out of the model
        stack = contextlib.ExitStack()
        if self.settings.dtype == "bf16":
            stack.enter_context(torch.autocast(self.args.device.type, torch.bfloat16))
        return stack

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(model, {**inputs, "use_cache": False}, *args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        self.ledger.add_loss(loss, self.state.global_step + 1)
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # it would walk all parameters at every step for a number that nothing here uses

    # what is written down

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" not in logs:  # the summary at the end of train()
            return
        self.check_finite()
        loss, steps_per_s = self.ledger.end_line()
        self.record(
            "train",
            {
                "loss": loss,
                "lr": logs["learning_rate"],
                "grad_norm": logs["grad_norm"],
                "tokens_per_s": round(steps_per_s * self.settings.tokens_per_step, 1),
            },
        )
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)
        self._end_here_if_told()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validate, unless told to stop: then the checkpoint says it is due, and the resumed run begins with it."""
        self.check_finite()
        self.evaluation_due = True
        values: dict[str, float] = {}
        with self.ledger.untimed(), contextlib.suppress(_StopEvaluationError):
            result = evaluate(
                self.causal_model,
                self.tokenizer,
                self.documents,
                context=self.settings.context,
                autocast=self.settings.dtype == "bf16",
                progress=self._go_on_evaluating,
            )
            if not math.isfinite(result.bpb):
                raise self._broken(f"validation gave no number at step {self.state.global_step}")
            self.evaluation_due = False
            values = {"bpb": result.bpb, "perplexity": result.perplexity, "nll_per_token": result.nll_per_token}
            self.record("valid", {**values, "valid_tokens": result.tokens, "valid_bytes": result.bytes})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        self._end_here_if_told()
        return values

    def _end_here_if_told(self) -> None:
        # what is due must be saved with the step it is due at, not with the next
        if self.stop():
            self.control.should_save = self.control.should_training_stop = True

    def _go_on_evaluating(self, tokens: int) -> None:
        if self.stop():
            raise _StopEvaluationError

    def record(self, kind: str, values: Mapping[str, Any]) -> None:
        step = self.state.global_step
        tokens = step * self.settings.tokens_per_step
        record = {"kind": kind, "step": step, "tokens": tokens, **values, "elapsed": round(self.ledger.elapsed, 2)}
        self.metrics.add(record)
        self.on_record(record)

    def check_finite(self) -> None:
        """Raise a ``FoveateError`` if the loss has been other than a number: nothing of it must be saved."""
        step = self.ledger.first_bad_step
        if step is not None:
            raise self._broken(f"the loss was not a finite number at step {step}")

    def _broken(self, what: str) -> FoveateError:
        peak = self.settings.lr or 0.0
        steps = self.checkpoints.steps()
        if not steps:
            return FoveateError(f"{what}, and nothing was saved before; start again with a lower --lr than {peak:g}")
        return FoveateError(
            f"{what}; {self.checkpoints.path(steps[0])} is from before: go on from it more slowly with "
            f"foveate train --resume {self.checkpoints.run} --lr {peak / 2:.2g}"
        )

    # checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.check_finite()
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.causal_model.parameters()):
            raise self._broken(f"weights are not finite numbers any more at step {self.state.global_step}")
        with self.ledger.untimed(), self.checkpoints.writing(self.state.global_step) as (folder, notes):
            run, self.args.output_dir = self.args.output_dir, str(folder.parent)
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.args.output_dir = run
            (folder / "training_args.bin").unlink()  # a pickle of what foveate.yaml says
            (folder / SETTINGS_FILE).write_text(self.settings.to_yaml(), encoding="utf-8")
            notes.update(self.notes, metrics_bytes=self.metrics.sync())

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        save_optimizer(Path(output_dir) / OPTIMIZER_FILE, self.optimizer, self.lr_scheduler)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(Path(checkpoint) / OPTIMIZER_FILE, self.optimizer, self.lr_scheduler)

    def _save_rng_state(self, output_dir: str) -> None:
        ledger, tensors = self.ledger.state()
        notes = {"ledger": ledger, "evaluation_due": self.evaluation_due}
        save_process(Path(output_dir) / process_file(self.args.process_index), notes, tensors)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            restore_random_states(Path(checkpoint) / process_file(self.args.process_index))


class _StopEvaluationError(Exception):
    """Told to stop while validating."""


class _Schedule(TrainerCallback):
    """Says after each step what is due."""

    def __init__(self, trainer: CausalTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.ledger.start_clock()
        if self.trainer.evaluation_due:
            self.trainer.evaluate()
            if self.trainer.evaluation_due:
                raise _StopEvaluationError  # before a step was taken, so there is nothing new to save

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer, settings, step = self.trainer, self.trainer.settings, state.global_step
        trainer.ledger.end_step()
        trainer.on_step(step)
        last = step >= settings.steps
        stopping = trainer.stop()
        control.should_log = last or step % settings.log_every == 0
        control.should_evaluate = bool(trainer.documents) and (last or step % settings.eval_every == 0)
        control.should_save = last or stopping or step % settings.save_every == 0
        control.should_training_stop = last or stopping


def stack(items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Sequences [T] to a batch [B, T]; one tensor where the labels are the inputs themselves."""
    ids_BT = torch.stack([item["input_ids"] for item in items])
    if all(item["labels"] is item["input_ids"] for item in items):
        return {"input_ids": ids_BT, "labels": ids_BT}
    return {"input_ids": ids_BT, "labels": torch.stack([item["labels"] for item in items])}


def _arguments(settings: TrainSettings, device: torch.device) -> TrainingArguments:
    args = TrainingArguments(
        output_dir=settings.out,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch // settings.accumulate,
        gradient_accumulation_steps=settings.accumulate,
        activation_checkpointing=settings.gradient_checkpointing,
        learning_rate=settings.lr or 0.0,
        optim="adamw_torch_fused",  # three times as fast as the others on a CPU, and the fastest on GPUs
        adam_beta1=0.9,
        adam_beta2=0.95,
        weight_decay=settings.weight_decay,
        max_grad_norm=1.0,
        seed=settings.seed % 2**32,
        use_cpu=device.type == "cpu",
        use_cache=True,  # as the saved configuration shall have it; compute_loss says otherwise
        # _Schedule decides what is due
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,  # it waits for the device at every step, to hide what must be seen
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        dataloader_num_workers=settings.workers,
        dataloader_persistent_workers=settings.workers > 0,
        dataloader_pin_memory=device.type == "cuda",
    )
    # several visible GPUs would mean DataParallel: here one process drives one device
    args._n_gpu = min(1, args.n_gpu)
    return args
