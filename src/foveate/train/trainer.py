"""The training loop: a step, what is due after it, and a checkpoint from which it goes on as if nothing had happened.

Legend: B sequences, T tokens.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from foveate.backends import cpu
from foveate.data.corpus import Blocks
from foveate.data.stream import BlockStream
from foveate.devices import peak_memory
from foveate.errors import FoveateError
from foveate.model.init import SELF_LOGIT
from foveate.train import spread
from foveate.train.batches import BlockLoader
from foveate.train.build import checkpoint_activations
from foveate.train.checkpoint import Checkpoint, Checkpoints
from foveate.train.distill import Teacher
from foveate.train.distributed import World
from foveate.train.documents import Document
from foveate.train.evaluate import evaluate
from foveate.train.ledger import Ledger
from foveate.train.metrics import Metrics
from foveate.train.optimizer import make_optimizer, set_rate
from foveate.train.parts import parts_to_train, train_only
from foveate.train.samples import write_text
from foveate.train.schedule import learning_rate
from foveate.train.settings import SETTINGS_FILE, TrainSettings
from foveate.train.start import save_model
from foveate.train.state import (
    OPTIMIZER_FILE,
    PROCESS_FILE,
    load_optimizer,
    read_process,
    restore_random_states,
    save_optimizer,
    save_process,
)
from foveate.train.streaming import StreamLoader

LOSS_LIMIT = 2.0  # a loss above so many times an untrained model's has exploded: that guesses, or bets on a repetition
MAX_SKIPPED = 20  # steps in a row, after which skipping does not help
MAX_NORM = 1.0  # of the gradient: a longer one is shortened
SHOWN_SEQUENCES = 3


@dataclass(kw_only=True)
class Trainer:
    """Trains a causal language model by ``settings``, which must be resolved.

    Every process of a run has one. The loss of a step is that of its whole batch, however many parts and processes
    compute it, and nothing is read from the device but where a line of the log, a validation or a checkpoint is due.

    Attributes:
        documents: what to validate on; empty for none.
        metrics: the log; None where another process writes it.
        notes: goes into the manifest of every checkpoint.
        on_record: called with each record of the log as it is written.
        on_step: called after each step with its number.
        note: told what a person is to know at once.
        stop: asked after every step; once it says True the run saves a checkpoint and ends.
        step: the one that is being taken, or was taken last; the first is 1.
        evaluation_due: the validation of this step was put off, because the run was to stop.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: TrainSettings
    device: torch.device
    data: Blocks | BlockStream
    documents: Sequence[Document]
    teacher: Teacher | None
    checkpoints: Checkpoints
    metrics: Metrics | None
    notes: Mapping[str, Any]
    on_record: Callable[[dict[str, Any]], None]
    on_step: Callable[[int], None]
    note: Callable[[str], None]
    stop: Callable[[], bool]
    world: World
    step: int = 0
    skipped_in_a_row: int = 0
    evaluation_due: bool = False

    def __post_init__(self) -> None:
        loader: Any = StreamLoader if isinstance(self.data, BlockStream) else BlockLoader
        self.loader: StreamLoader | BlockLoader = loader(self.data, self.settings, self.world)
        limit = LOSS_LIMIT * max(SELF_LOGIT, math.log(self.model.config.vocab_size))
        self.ledger = Ledger(self.device, limit=limit)

    @property
    def finished(self) -> bool:
        return self.step >= self.settings.steps and not self.evaluation_due

    def run(self, checkpoint: Checkpoint | None = None) -> None:
        """Train to the last step, or until told to stop; from a checkpoint on, if given."""
        self._begin(checkpoint)
        if self.evaluation_due:
            self.evaluate()
        if self.evaluation_due:  # told to stop before a step was taken, so there is nothing new to save
            return
        batches = self.loader.batches(self.step)
        while self.step < self.settings.steps:
            self.step += 1
            self._take_step([next(batches) for _ in range(self.settings.accumulate)])
            if self._end_step():
                break
            if self.step == self.stage_end:
                self._enter_stage()

    # what is computed

    def _begin(self, checkpoint: Checkpoint | None) -> None:
        settings = self.settings
        set_seed(settings.seed % 2**32)
        if settings.gradient_checkpointing:
            checkpoint_activations(self.model)
        if self.device.type == "cpu":
            cpu.accelerate(self.model)
        self.names, self.stages = parts_to_train(self.model, settings)
        if settings.parallel == "fsdp" and self.world.size > 1:
            spread.shard(self.model, self.world, self.device)
        else:
            self.model.to(self.device)  # type: ignore[arg-type]
        self.optimizer = make_optimizer(self.model, settings, self.names)  # of what its parameters have become
        if checkpoint is not None:
            self._restore(checkpoint)
        self._enter_stage()
        self.model.train()
        self.ledger.start_clock()

    def _enter_stage(self) -> None:
        """From the next step on, train what its stage is to train."""
        self.stage_end, trained = next(
            ((last, names) for last, names in self.stages if self.step < last), (self.settings.steps, self.names)
        )
        train_only(self.model, trained)
        self.forward = self.copies = spread.copy_to_all(self.model, self.world, self.settings.context)
        if self.settings.compile:
            self.forward = torch.compile(self.copies)
            self.note("compiling the model: the next step takes minutes, those after it less than before")

    def _take_step(self, parts: list[dict[str, Tensor]]) -> None:
        targets = sum(int((part["labels"][:, 1:] != -100).sum()) for part in parts)
        in_all = self.world.sum(targets)
        self.rate = set_rate(self.optimizer, learning_rate(self.step, self.settings))
        for number, part_BT in enumerate(parts, 1):
            inputs_BT = {name: ids_BT.to(self.device, non_blocking=True) for name, ids_BT in part_BT.items()}
            with spread.gathering(self.copies, number == len(parts)):
                loss = self.compute_loss(inputs_BT, in_all)
                loss.backward()
            self.ledger.add_loss(self.world.mean(loss.detach()))
        self.norm = spread.whole(clip_grad_norm_(self.model.parameters(), MAX_NORM))
        # what a GradScaler tells a fused optimizer: with 1 it changes neither weights nor its own state
        self.optimizer.found_inf = self.ledger.end_step(self.norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def compute_loss(self, inputs_BT: dict[str, Tensor], targets: float) -> Tensor:
        """A part's share of the loss of its step, in nats per token, so that the mean over processes is the whole.

        ``targets`` is how many tokens the step predicts in all.
        """
        with self._precision():
            if self.teacher is not None:
                loss = self.teacher.loss(self.forward, inputs_BT, targets)
            else:
                loss = self.forward(**inputs_BT, num_items_in_batch=targets, use_cache=False).loss
        return loss * self.world.size

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.settings.dtype == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    # what is due after a step

    def _end_step(self) -> bool:
        """Log, validate and save what is due; returns whether the run ends here."""
        self.on_step(self.step)
        if self._is_due(self.settings.log_every):
            self.log()
        if self.documents and self._is_due(self.settings.eval_every):
            self.evaluate()
        if self.settings.sample_every and self._is_due(self.settings.sample_every):
            self.sample()
        stopping = self.stop()  # asked last: what is due is saved with the step it is due at
        if stopping or self._is_due(self.settings.save_every):
            self.save()
        return stopping

    def _is_due(self, every: int | None) -> bool:
        return self.step >= self.settings.steps or self.step % (every or 1) == 0

    def log(self) -> None:
        line = self.ledger.end_line()
        first = self.step - len(line.losses) + 1
        for step, (loss, faulty) in enumerate(zip(line.losses, line.faulty, strict=True), first):
            self._note_step(step, loss, faulty)
        if line.loss is not None:
            tokens_per_s = round(line.steps_per_s * self.settings.tokens_per_step, 1)
            norm = self.norm.item()
            values = {"loss": line.loss, "lr": self.rate, "grad_norm": norm, "tokens_per_s": tokens_per_s}
            self.record("train", {**values, "memory_bytes": peak_memory(self.device)})

    def evaluate(self) -> None:
        """Validate, unless told to stop: then the checkpoint says it is due, and the resumed run begins with it."""
        self.check_steps()
        self.evaluation_due = True
        with self.ledger.untimed(), contextlib.suppress(_StopEvaluationError):
            result = evaluate(
                self.model,
                self.tokenizer,
                self.documents,
                context=self.settings.context,
                autocast=self.settings.dtype == "bf16",
                progress=self._go_on_evaluating,
                world=self.world,
            )
            if not math.isfinite(result.bpb):
                raise self._broken(f"validation gave no number at step {self.step}")
            self.evaluation_due = False
            self.checkpoints.scores[self.step] = result.bpb
            values = {"bpb": result.bpb, "perplexity": result.perplexity, "nll_per_token": result.nll_per_token}
            self.record("valid", {**values, "valid_tokens": result.tokens, "valid_bytes": result.bytes})

    def sample(self) -> None:
        """Write some text, as the model is now; the main process alone, as each has all weights."""
        if self.metrics is None:
            return
        prompt = self.settings.sample_prompt
        with self.ledger.untimed(), self._precision():
            text = write_text(self.model, self.tokenizer, prompt, seed=self.settings.seed, most=self.settings.context)
        self.record("sample", {"prompt": prompt, "text": text})

    def _go_on_evaluating(self, tokens: int) -> None:
        if self.stop():
            raise _StopEvaluationError

    def record(self, kind: str, values: Mapping[str, Any], *, step: int | None = None) -> None:
        step = self.step if step is None else step
        tokens = step * self.settings.tokens_per_step
        known = {name: None if _is_no_number(value) else value for name, value in values.items()}
        record = {"kind": kind, "step": step, "tokens": tokens, **known, "elapsed": round(self.ledger.elapsed, 2)}
        if self.metrics is not None:
            self.metrics.add(record)
            self.on_record(record)

    # steps that were no good

    def check_steps(self) -> None:
        """Raise a ``FoveateError`` if the run is to stop for a step since the last line: nothing must be saved."""
        faults = self.ledger.find_faults() if self.settings.on_nan == "stop" else []
        if faults:
            losses = self.ledger.losses
            self._note_step(self.step - len(losses) + 1 + faults[0], losses[faults[0]].item(), True)

    def _note_step(self, step: int, loss: float, faulty: bool) -> None:
        if not faulty:
            self.skipped_in_a_row = 0
            return
        self.skipped_in_a_row += 1
        text = self.loader.where(step)
        if self.settings.on_nan == "stop" or self.skipped_in_a_row >= min(MAX_SKIPPED, self.settings.steps):
            what = "the gradient was not a finite number" if loss <= self.ledger.limit else f"the loss was {loss:.4g}"
            in_a_row = f", the last of {self.skipped_in_a_row} such in a row" if self.skipped_in_a_row > 1 else ""
            more = f" and {len(text) - SHOWN_SEQUENCES} more" if len(text) > SHOWN_SEQUENCES else ""
            batch = f"{', '.join(text[:SHOWN_SEQUENCES])}{more}"
            raise self._broken(f"{what} at step {step}{in_a_row}, on {batch}", skip=not in_a_row)
        self.record("skipped", {"loss": loss, "text": text}, step=step)

    def _broken(self, what: str, *, skip: bool = False) -> FoveateError:
        peak = self.settings.lr or 0.0
        steps = self.checkpoints.steps()
        saved = f"{self.checkpoints.path(steps[0])} is from before" if steps else "nothing was saved before"
        skipping = ", or leave such steps out with --on-nan skip" if skip else ""
        return FoveateError(
            f"{what}; {saved}: go on more slowly with "
            f"foveate train --resume {self.checkpoints.run} --lr {peak / 2:.2g}{skipping}"
        )

    # checkpoints, the same however many processes there are: brought together, written by rank 0, read by all

    def save(self) -> None:
        self.check_steps()
        if self.world.any(not spread.is_finite(self.model)):
            raise self._broken(f"weights are not finite numbers any more at step {self.step}")
        with self.ledger.untimed():
            weights = spread.whole_weights(self.model)
            state = spread.whole_optimizer_state(self.optimizer)
            self.world.on_main(lambda: self._write(weights, state))

    def _write(self, weights: dict[str, Tensor] | None, optimizer_state: dict[str, Any]) -> None:
        assert self.metrics is not None
        with self.checkpoints.writing(self.step) as (folder, notes):
            save_model(self.model, folder, self.settings, weights)
            self.tokenizer.save_pretrained(folder)
            save_optimizer(folder / OPTIMIZER_FILE, optimizer_state)
            ledger, tensors = self.ledger.state()
            state = {
                "ledger": ledger,
                "evaluation_due": self.evaluation_due,
                "skipped_in_a_row": self.skipped_in_a_row,
                "stream": self.loader.state(),
            }
            save_process(folder / PROCESS_FILE, state, tensors)
            (folder / SETTINGS_FILE).write_text(self.settings.to_yaml(), encoding="utf-8")
            self.metrics.save(folder)
            notes.update(self.notes)

    def _restore(self, checkpoint: Checkpoint) -> None:
        folder = checkpoint.path
        load_optimizer(folder / OPTIMIZER_FILE, self.optimizer, place=spread.like)
        state, tensors = read_process(folder / PROCESS_FILE)
        self.step = checkpoint.step
        self.ledger.restore(state["ledger"], tensors)
        self.evaluation_due = state["evaluation_due"]
        self.skipped_in_a_row = state["skipped_in_a_row"]
        self.loader.restore(state["stream"])
        restore_random_states(folder / PROCESS_FILE)


class _StopEvaluationError(Exception):
    """Told to stop while validating."""


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
