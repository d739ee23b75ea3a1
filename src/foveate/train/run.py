"""A training run from beginning to end, or from where it stopped."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from foveate.data.corpus import Blocks, Corpus, open_corpus
from foveate.data.split import split_documents
from foveate.data.stream import BlockStream
from foveate.data.tokenizer import SAMPLE_CHARACTERS, load_tokenizer, make_tokenizer, vocabulary_size
from foveate.devices import pick_device, pick_dtype
from foveate.errors import FoveateError
from foveate.files import is_disk_full, write_atomically
from foveate.hf.identity import weights_digest
from foveate.loading import quiet_transformers
from foveate.train.build import build_model, count_parameters
from foveate.train.checkpoint import FORMAT, Checkpoint, Checkpoints
from foveate.train.display import Display
from foveate.train.distill import open_teacher
from foveate.train.distributed import World, joined
from foveate.train.documents import Document, sample_documents
from foveate.train.folder import export, holds_run, locked, make_room
from foveate.train.memory import check_training_memory
from foveate.train.metrics import Metrics, check_tensorboard, read_metrics
from foveate.train.parts import parts_to_train
from foveate.train.settings import (
    CHANGEABLE_ON_RESUME,
    FREE_ON_RESUME,
    MOVABLE,
    SETTINGS_FILE,
    TrainSettings,
    read_settings_file,
)
from foveate.train.shares import check_shares
from foveate.train.signals import StopRequest
from foveate.train.start import add_adapters, make_model, open_start, restore_model
from foveate.train.streaming import (
    check_data_is_there,
    data_fingerprint,
    first_texts,
    held_out_documents,
    text_stream,
    valid_data_fingerprint,
)
from foveate.train.tracking import Trackers, check_trackers
from foveate.train.trainer import Trainer

Record = dict[str, Any]

ANY_FRACTION = 0.01  # where nothing is split off, but a fraction has to be given


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a call of ``train`` or ``resume`` came to.

    Attributes:
        finished: the last step is done and ``path`` is a complete model; otherwise a signal has stopped the run.
        exit_code: 0, or what a shell expects after the signal.
        parameters: of the whole model, a tied embedding once.
        train, valid: the last such records of ``metrics.jsonl``; empty if there are none.
    """

    path: Path
    step: int
    steps: int
    finished: bool
    exit_code: int
    parameters: int
    train: Record
    valid: Record


def train(
    settings: TrainSettings,
    *,
    overwrite: bool = False,
    on_record: Callable[[Record], None] = lambda record: None,
) -> RunResult:
    """Train a new model into the run directory ``settings.out``.

    Args:
        overwrite: replace a run that is there.
        on_record: called with each record of ``metrics.jsonl``.

    Raises:
        FoveateError: bad settings or data, a directory that is taken, too little memory or disk, a loss that is not a
            number any more.
    """
    run = Path(settings.out)
    with joined(f"foveate train --resume {run}") as world, _held(run, world):
        world.on_main(lambda: make_room(run, overwrite=overwrite))
        return _Session(settings, run, on_record, world).go()


def resume(
    run: str | Path,
    changes: Mapping[str, Any] | None = None,
    *,
    on_record: Callable[[Record], None] = lambda record: None,
) -> RunResult:
    """Go on with a run from its newest whole checkpoint, exactly as it would have gone on undisturbed.

    Args:
        changes: settings given anew; those that would make it another run are refused.

    Raises:
        FoveateError: as ``train``; there is no run, no checkpoint of it is whole, or its data has changed.
    """
    run = Path(run)
    with joined(f"foveate train --resume {run}") as world:
        if not holds_run(run):
            raise FoveateError(
                f"there is no run to resume at {run}: no {SETTINGS_FILE}; leave out --resume to start one"
            )
        with _held(run, world):
            settings = TrainSettings(**read_settings_file(run / SETTINGS_FILE))
            settings = replace(settings, out=str(run)).resumed_with(changes or {})
            check_data_is_there(settings)
            return _Session(settings, run, on_record, world).go(resuming=True)


@contextlib.contextmanager
def _held(run: Path, world: World) -> Iterator[None]:
    """Rank 0 holds the run directory for all processes of the run."""
    with contextlib.ExitStack() as stack:
        world.on_main(lambda: stack.enter_context(locked(run)))
        yield


class _Session:
    """One process's work on a run whose directory is held for it."""

    def __init__(self, settings: TrainSettings, run: Path, on_record: Callable[[Record], None], world: World) -> None:
        self.settings = settings
        self.run = run
        self.on_record = on_record
        self.world = world
        self.checkpoints = Checkpoints(run, keep=settings.keep, keep_best=settings.keep_best)
        self.display = Display(settings.steps, settings.tokens_per_step, quiet=not world.is_main)

    def go(self, *, resuming: bool = False) -> RunResult:
        world = self.world
        if self.settings.tensorboard:
            check_tensorboard()
        check_trackers(self.settings.report_to)
        check_shares(batch=self.settings.batch, parts=self.settings.accumulate, size=world.size)
        checkpoint = world.on_main(self._find_checkpoint) if resuming else None
        device = world.device(pick_device(self.settings.device))
        self.settings = replace(self.settings, dtype=pick_dtype(self.settings.dtype, device))
        start = self._start(checkpoint)
        teacher = None if self.settings.teacher is None else open_teacher(self.settings, device)
        tokenizer = world.on_main(lambda: self._tokenizer(checkpoint)) if start is None else start[1]
        check_training_memory(self.settings, vocabulary_size(tokenizer), device, processes=world.size)
        if teacher is not None:
            teacher.check_reads(tokenizer)
        data = world.first_on_node(lambda: self._data(tokenizer))
        identity = data_fingerprint(self.settings)
        notes = {
            "data": identity,
            "valid_data": valid_data_fingerprint(self.settings),
            "from": start and weights_digest(start[0]),
            "teacher": teacher and teacher.digest,
            "versions": _versions(),
        }
        self._check_sources(checkpoint, notes)
        world.ask_all_same(identity, "--data")
        documents = world.first_on_node(lambda: self._documents(tokenizer))
        if teacher is not None and isinstance(data, Blocks):
            teacher = teacher.keeping_answers(data, self.settings)
        model = self._model(tokenizer, checkpoint, start and start[0])
        stop = StopRequest(self.display.note, insists=world.size == 1)
        with (
            self._disk_full_in_one_line(),
            self._metrics(checkpoint) as metrics,
            quiet_transformers(),
            self.display,
            stop,
        ):
            trainer = Trainer(
                model=model,
                tokenizer=tokenizer,
                settings=self.settings,
                device=device,
                data=data,
                documents=documents,
                teacher=teacher,
                checkpoints=self.checkpoints,
                metrics=metrics,
                notes=notes,
                on_record=self._on_record,
                on_step=self.display.on_step,
                note=self.display.note,
                stop=lambda: world.any(stop()),
                world=world,
            )
            trainer.run(checkpoint)
        return self._conclude(trainer, stop)

    def _conclude(self, trainer: Trainer, stop: StopRequest) -> RunResult:
        if trainer.finished:
            self.world.on_main(lambda: export(self.checkpoints.at(self.settings.steps), self.run))
        last = {record["kind"]: record for record in read_metrics(self.run)} if self.world.is_main else {}
        return RunResult(
            path=self.run,
            step=trainer.step,
            steps=self.settings.steps,
            finished=trainer.finished,
            exit_code=0 if trainer.finished else max(self.world.gather(stop.exit_code)),
            parameters=trainer.model.num_parameters(),
            train=last.get("train", {}),
            valid=last.get("valid", {}),
        )

    def _on_record(self, record: Record) -> None:
        self.display.on_record(record)
        self.on_record(record)

    def _metrics(self, checkpoint: Checkpoint | None) -> contextlib.AbstractContextManager[Metrics | None]:
        if not self.world.is_main:
            return contextlib.nullcontext()
        settings = self.settings
        return Metrics(
            self.run,
            checkpoint=None if checkpoint is None else checkpoint.path,
            tensorboard=settings.tensorboard or "tensorboard" in settings.report_to,
            trackers=Trackers(settings, self.run, self.display.note) if settings.report_to else None,
        )

    @contextlib.contextmanager
    def _disk_full_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if isinstance(error, FoveateError) or not is_disk_full(error):
                raise
            raise FoveateError(f"no space left in {self.run}{self.checkpoints.way_back()}") from None

    def _find_checkpoint(self) -> Checkpoint | None:
        note = self.display.note
        for name in self.checkpoints.clear_unfinished():
            note(f"cleared away an unfinished {name}, which was being written or removed when the run ended")
        checkpoint = self.checkpoints.newest_whole(note)
        if checkpoint is None:
            note(f"{self.run} has no checkpoint yet; starting at the first step")
            return None
        if checkpoint.notes["format"] != FORMAT:
            raise FoveateError(f"{checkpoint.path} was saved by another version of foveate; resume it with that one")
        if checkpoint.step > self.settings.steps:
            done = checkpoint.step * self.settings.tokens_per_step
            raise FoveateError(f"--tokens: {self.run} has been trained on {done:,} already; give more")
        self._check_settings(checkpoint)
        for name, version in _versions().items():
            if version != checkpoint.notes["versions"][name]:
                was = checkpoint.notes["versions"][name]
                note(f"{name} was {was} and is {version}: the run goes on, but may differ in its last bits")
        self.checkpoints.scores = {
            record["step"]: record["bpb"] for record in read_metrics(checkpoint.path) if record["kind"] == "valid"
        }
        self.checkpoints.prune()
        return checkpoint

    def _check_settings(self, checkpoint: Checkpoint) -> None:
        """The run's settings are a file that anyone can edit; a checkpoint knows what it was trained with."""
        trained_with = TrainSettings(**read_settings_file(checkpoint.path / SETTINGS_FILE))
        for option in fields(TrainSettings):
            mine, its = getattr(self.settings, option.name), getattr(trained_with, option.name)
            if mine != its and option.name not in FREE_ON_RESUME + CHANGEABLE_ON_RESUME + MOVABLE:
                raise FoveateError(
                    f"{self.run / SETTINGS_FILE} says {option.name}: {mine!r}, but {checkpoint.path.name} was trained "
                    f"with {its!r}; change it back to resume"
                )

    def _check_sources(self, checkpoint: Checkpoint | None, notes: Mapping[str, Any]) -> None:
        settings = self.settings
        named = {
            "data": ("data", ", ".join(settings.data)),
            "valid_data": ("validation data", ", ".join(settings.valid_data)),
            "from": ("start", settings.from_),
            "teacher": ("teacher", settings.teacher),
        }
        for name, (what, where) in named.items():
            if checkpoint is None or notes[name] is None or (name == "valid_data" and name not in checkpoint.notes):
                continue  # nothing to compare with: checkpoints once did not know what they were validated on
            if checkpoint.notes.get(name) != notes[name]:
                raise FoveateError(
                    f"the {what} of {self.run} is not what it was when the run began: {where}; "
                    f"bring that back, or choose another --out for a new run"
                )

    def _start(self, checkpoint: Checkpoint | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase] | None:
        """What a run is started from, where it is: a checkpoint has it all but what adapters are beside."""
        if self.settings.from_ is None or (checkpoint is not None and not self.settings.lora):
            return None
        self.settings, model, tokenizer = open_start(self.settings)
        return model, tokenizer

    def _tokenizer(self, checkpoint: Checkpoint | None) -> PreTrainedTokenizerBase:
        if checkpoint is not None:
            return load_tokenizer(checkpoint.path)
        return make_tokenizer(self.settings.tokenizer, self._tokenizer_texts)

    def _tokenizer_texts(self) -> Iterator[str]:
        settings = self.settings
        if settings.stream:
            return first_texts(text_stream(settings), 2 * SAMPLE_CHARACTERS)
        return split_documents(
            settings.data,
            split=self._train_split,
            valid_fraction=settings.valid_fraction or ANY_FRACTION,
            reading=settings.reading,
        )

    def _data(self, tokenizer: PreTrainedTokenizerBase) -> Blocks | BlockStream:
        settings = self.settings
        if settings.stream:
            return BlockStream(text_stream(settings), tokenizer, context=settings.context)
        corpus = open_corpus(
            settings.data,
            tokenizer,
            split=self._train_split,
            valid_fraction=settings.valid_fraction or ANY_FRACTION,
            reading=settings.reading,
            progress=self.world.is_main,
        )
        return Blocks(corpus, settings.context)

    @property
    def _train_split(self) -> str:
        return "all" if self.settings.valid_data or not self.settings.valid_fraction else "train"

    def _documents(self, tokenizer: PreTrainedTokenizerBase) -> list[Document]:
        """What to validate on."""
        settings = self.settings
        if not settings.valid_data and not settings.valid_fraction:
            return []
        if settings.stream and not settings.valid_data:
            return held_out_documents(text_stream(settings), tokenizer, settings.validation_tokens)
        return sample_documents(open_validation(settings, tokenizer), tokenizer, settings.validation_tokens)

    def _model(
        self, tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint | None, model: PreTrainedModel | None
    ) -> PreTrainedModel:
        """The model to train; with its size the settings are complete, and are written down."""
        with quiet_transformers():
            if model is None and self.settings.from_ is not None and checkpoint is not None:
                model = make_model(AutoConfig.from_pretrained(checkpoint.path), self.settings.context)
            elif model is None:
                model = build_model(self.settings, tokenizer)
            parameters = count_parameters(model)
            if self.settings.lora is not None:
                set_seed(self.settings.seed % 2**32)
                model = add_adapters(model, self.settings)
        if checkpoint is not None:
            restore_model(model, checkpoint.path, self.settings)
        parts_to_train(model, self.settings)  # what cannot be done is said before anything is written
        self.settings = self.settings.resolve(parameters=parameters)
        self.world.on_main(lambda: write_atomically(self.run / SETTINGS_FILE, self.settings.to_yaml()))
        return model


def _versions() -> dict[str, str]:
    from foveate import __version__

    return {
        "foveate": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def open_validation(settings: TrainSettings, tokenizer: PreTrainedTokenizerBase) -> Corpus:
    """The text a run holds out, all of it.

    Raises:
        FoveateError: it holds out none.
    """
    if settings.valid_data:
        return open_corpus(settings.valid_data, tokenizer, reading=settings.reading)
    if not settings.valid_fraction:
        raise FoveateError("the run held out no text; name some with --data")
    if settings.stream:
        raise FoveateError("the run streams its text, and held out some of it here and there; name some with --data")
    return open_corpus(
        settings.data,
        tokenizer,
        split="valid",
        valid_fraction=settings.valid_fraction,
        reading=settings.reading,
    )
