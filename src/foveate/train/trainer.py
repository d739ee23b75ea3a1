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
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from foveate.data.corpus import Blocks
from foveate.data.stream import BlockStream
from foveate.errors import FoveateError
from foveate.model.start import SELF_LOGIT
from foveate.train.build import decayed_parameters
from foveate.train.checkpoint import Checkpoints
from foveate.train.distributed import World
from foveate.train.documents import Document
from foveate.train.evaluate import evaluate
from foveate.train.ledger import Ledger
from foveate.train.metrics import Metrics
from foveate.train.order import ShuffledEpochs
from foveate.train.parallel import ParallelTrainer
from foveate.train.schedule import rate, warmup_steps
from foveate.train.settings import SETTINGS_FILE, TrainSettings
from foveate.train.state import PROCESS_FILE, read_process, restore_random_states, save_process
from foveate.train.streaming import StreamLoader

LOSS_LIMIT = 2.0  # a loss above so many times an untrained model's has exploded: that guesses, or bets on a repetition
MAX_SKIPPED = 20  # steps in a row, after which skipping does not help
SHOWN_SEQUENCES = 3


class CausalTrainer(ParallelTrainer):
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
        data: Blocks | BlockStream,
        documents: Sequence[Document],
        checkpoints: Checkpoints,
        metrics: Metrics | None,
        notes: Mapping[str, Any],
        on_record: Callable[[dict[str, Any]], None],
        on_step: Callable[[int], None],
        stop: Callable[[], bool],
        world: World,
    ) -> None:
        self.world = world
        self.settings = settings
        self.causal_model = model
        self.tokenizer = tokenizer
        self.data = data
        self.stream = StreamLoader(data, settings, world) if isinstance(data, BlockStream) else None
        self.documents = documents
        self.checkpoints = checkpoints
        self.metrics = metrics
        self.notes = notes
        self.on_record = on_record
        self.on_step = on_step
        self.stop = stop
        self.ledger = Ledger(device, limit=LOSS_LIMIT * max(SELF_LOGIT, math.log(model.config.vocab_size)))
        self.skipped_in_a_row = 0
        self.evaluation_due = False
        super().__init__(
            model=model,
            args=_arguments(settings, device, world),
            processing_class=tokenizer,
            train_dataset=data,
            data_collator=stack,
            callbacks=[_Schedule(self)],
        )
        self.remove_callback(PrinterCallback)

    def run(self, checkpoint: Path | None = None) -> None:
        """Train to the last step, or until told to stop; from a checkpoint on, if given."""
        if checkpoint is not None:
            notes, tensors = read_process(checkpoint / PROCESS_FILE)
            self.ledger.restore(notes["ledger"], tensors)
            self.evaluation_due = notes["evaluation_due"]
            self.skipped_in_a_row = notes["skipped_in_a_row"]
            if self.stream is not None:
                self.stream.start_at(**notes["stream"])
        with contextlib.suppress(_StopEvaluationError):
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    @property
    def finished(self) -> bool:
        return self.state.global_step >= self.settings.steps and not self.evaluation_due

    # what is computed

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> ShuffledEpochs:
        draws = self.settings.steps * self.settings.batch
        assert isinstance(self.data, Blocks)
        return ShuffledEpochs(size=len(self.data), draws=draws, seed=self.settings.seed)

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
        self.ledger.add_loss(loss)
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        """Clip the gradient of a step; a faulty step's update is not made, which the device decides alone."""
        norm = super()._clip_grad_norm(model)
        faulty = self.ledger.end_step(norm)
        # what a GradScaler tells a fused optimizer: with 1 it changes neither weights nor its own state
        optimizer: Any = self.optimizer
        optimizer.optimizer.found_inf = faulty
        return norm

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # it would walk all parameters at every step for a number that nothing here uses

    # what is written down

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" not in logs:  # the summary at the end of train()
            return
        line = self.ledger.end_line()
        first = self.state.global_step - len(line.losses) + 1
        for step, (loss, faulty) in enumerate(zip(line.losses, line.faulty, strict=True), first):
            self._note_step(step, loss, faulty)
        if line.loss is not None:
            self.record(
                "train",
                {
                    "loss": line.loss,
                    "lr": logs["learning_rate"],
                    "grad_norm": logs["grad_norm"],
                    "tokens_per_s": round(line.steps_per_s * self.settings.tokens_per_step, 1),
                },
            )
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)
        self._end_here_if_told()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validate, unless told to stop: then the checkpoint says it is due, and the resumed run begins with it."""
        self.check_steps()
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
                world=self.world,
            )
            if not math.isfinite(result.bpb):
                raise self._broken(f"validation gave no number at step {self.state.global_step}")
            self.evaluation_due = False
            values = {"bpb": result.bpb, "perplexity": result.perplexity, "nll_per_token": result.nll_per_token}
            self.checkpoints.scores[self.state.global_step] = result.bpb
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

    def record(self, kind: str, values: Mapping[str, Any], *, step: int | None = None) -> None:
        step = self.state.global_step if step is None else step
        tokens = step * self.settings.tokens_per_step
        known = {name: None if _is_no_number(value) else value for name, value in values.items()}
        record = {"kind": kind, "step": step, "tokens": tokens, **known, "elapsed": round(self.ledger.elapsed, 2)}
        if self.metrics is not None:
            self.metrics.add(record)
            self.on_record(record)

    def check_steps(self) -> None:
        """Raise a ``FoveateError`` if the run is to stop for a step since the last line: nothing must be saved."""
        faults = self.ledger.find_faults() if self.settings.on_nan == "stop" else []
        if faults:
            count = len(self.ledger.losses)
            self._note_step(self.state.global_step - count + 1 + faults[0], self.ledger.losses[faults[0]].item(), True)

    def _note_step(self, step: int, loss: float, faulty: bool) -> None:
        if not faulty:
            self.skipped_in_a_row = 0
            return
        self.skipped_in_a_row += 1
        text = self._text_of(step)
        if self.settings.on_nan == "stop" or self.skipped_in_a_row >= min(MAX_SKIPPED, self.settings.steps):
            what = "the gradient was not a finite number" if loss <= self.ledger.limit else f"the loss was {loss:.4g}"
            in_a_row = f", the last of {self.skipped_in_a_row} such in a row" if self.skipped_in_a_row > 1 else ""
            more = f" and {len(text) - SHOWN_SEQUENCES} more" if len(text) > SHOWN_SEQUENCES else ""
            batch = f"{', '.join(text[:SHOWN_SEQUENCES])}{more}"
            raise self._broken(f"{what} at step {step}{in_a_row}, on {batch}", skip=not in_a_row)
        self.record("skipped", {"loss": loss, "text": text}, step=step)

    def _text_of(self, step: int) -> list[str]:
        if not isinstance(self.data, Blocks):
            assert self.stream is not None
            return [self.stream.where(step)]
        batch = self.settings.batch
        return [self.data.where(index) for index in self._get_train_sampler().part((step - 1) * batch, batch)]

    def _broken(self, what: str, *, skip: bool = False) -> FoveateError:
        peak = self.settings.lr or 0.0
        steps = self.checkpoints.steps()
        saved = f"{self.checkpoints.path(steps[0])} is from before" if steps else "nothing was saved before"
        skipping = ", or leave such steps out with --on-nan skip" if skip else ""
        return FoveateError(
            f"{what}; {saved}: go on more slowly with "
            f"foveate train --resume {self.checkpoints.run} --lr {peak / 2:.2g}{skipping}"
        )

    # checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.check_steps()
        if not self.weights_are_finite():
            raise self._broken(f"weights are not finite numbers any more at step {self.state.global_step}")
        with self.ledger.untimed():
            self.gather()
            self.world.on_main(lambda: self._write_checkpoint(model, trial))
            self.gathered = None

    def _write_checkpoint(self, model: nn.Module, trial: Any) -> None:
        assert self.metrics is not None
        with self.checkpoints.writing(self.state.global_step) as (folder, notes):
            run, self.args.output_dir = self.args.output_dir, str(folder.parent)
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.args.output_dir = run
            (folder / "training_args.bin").unlink()  # a pickle of what foveate.yaml says
            (folder / SETTINGS_FILE).write_text(self.settings.to_yaml(), encoding="utf-8")
            self.metrics.save(folder)
            notes.update(self.notes)

    def _save_rng_state(self, output_dir: str) -> None:
        ledger, tensors = self.ledger.state()
        notes = {
            "ledger": ledger,
            "evaluation_due": self.evaluation_due,
            "skipped_in_a_row": self.skipped_in_a_row,
            "stream": self.stream and self.stream.state(),
        }
        save_process(Path(output_dir) / PROCESS_FILE, notes, tensors)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            restore_random_states(Path(checkpoint) / PROCESS_FILE)


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
        trainer.on_step(step)
        last = step >= settings.steps
        stopping = trainer.stop()
        control.should_log = last or step % settings.log_every == 0
        control.should_evaluate = bool(trainer.documents) and (last or step % settings.eval_every == 0)
        control.should_save = last or stopping or step % settings.save_every == 0
        control.should_training_stop = last or stopping


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def stack(items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Sequences [T] to a batch [B, T]; one tensor where the labels are the inputs themselves."""
    ids_BT = torch.stack([item["input_ids"] for item in items])
    if all(item["labels"] is item["input_ids"] for item in items):
        return {"input_ids": ids_BT, "labels": ids_BT}
    return {"input_ids": ids_BT, "labels": torch.stack([item["labels"] for item in items])}


def _arguments(settings: TrainSettings, device: torch.device, world: World) -> TrainingArguments:
    args = TrainingArguments(
        output_dir=settings.out,
        max_steps=settings.steps,
        ignore_data_skip=settings.stream,  # a stream goes on by itself
        per_device_train_batch_size=-(-settings.batch // (settings.accumulate * world.size)),
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
