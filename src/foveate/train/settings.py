"""Everything that decides a training run, as one frozen dataclass; flags, the YAML file and the API are views of it.

Each field carries how its value is read (from a flag, from YAML or from code alike) and the help of its flag.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from foveate.data.reading import NEWLINES, NEWLINES_HELP, SKIP_HELP, TEXT_FIELD_HELP, Reading
from foveate.errors import FoveateError
from foveate.files import SETTINGS_FILE
from foveate.shape import config_values, read_levels, spec_from_config
from foveate.spec import EXPANDINGS, FULL, POOLINGS, HierarchySpec
from foveate.train.combinations import TRACKERS, check_together
from foveate.train.options import choice, count, flag, length, number, option, text, texts, walk_name, whole

PATTERNS = "leave as they are the parameters whose names match, such as 'model.embed*', moves or embedding"

# what --resume may change: the first changes nothing that is computed but its rounding, the second is meant to
FREE_ON_RESUME = (
    "out",
    "save_every",
    "keep",
    "keep_best",
    "log_every",
    "eval_every",
    "eval_tokens",
    "sample_every",
    "sample_prompt",
    "tensorboard",
    "report_to",
    "compile",
    "workers",
    "device",
    "parallel",
    "accumulate",
    "gradient_checkpointing",
)
CHANGEABLE_ON_RESUME = ("tokens", "lr", "final_lr", "on_nan")
MOVABLE = ("data", "valid_data")  # may lie elsewhere on resume, where the contents are the same
# what a command that is told to others leaves out: it makes no other model
UNTOLD = set(FREE_ON_RESUME) - {"out", "parallel", "accumulate", "gradient_checkpointing", "compile"}
FILES = ("data", "valid_data", "tokenizer", "from_", "teacher")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """A training run. ``None`` means "decided by the size of the run" until :meth:`resolve` has filled it in.

    Raises:
        FoveateError: a value out of range, named with its flag.
    """

    model: str = option("foveate", choice("foveate", "llama"), "model", "foveate, or llama: transformers' own", "KIND")
    walk: str = option("2@1 8@4 2@1", walk_name, "shape", "")
    hidden: int = option(256, count, "shape", "")
    heads: int | None = option(None, count, "shape", "")
    kv_heads: int | None = option(None, count, "shape", "")
    ff: int | None = option(None, count, "shape", "")
    levels: dict[str, dict[str, int]] | None = option(None, read_levels, "shape", "")  # noqa: RUF009
    pooling: str = option("mean", choice(*POOLINGS), "shape", "")
    expanding: str = option("repeat", choice(*EXPANDINGS), "shape", "")

    data: tuple[str, ...] = option(
        ("books",), texts, "data", "files of text or of rows, folders, globs, hf:NAME, or books (bundled)", "PATH"
    )
    text_field: str = option("text", text, "data", TEXT_FIELD_HELP, "NAME")
    newlines: str = option("keep", choice(*NEWLINES), "data", NEWLINES_HELP, "keep|unix")
    skip_unreadable: bool = option(False, flag, "data", SKIP_HELP)
    stream: bool = option(False, flag, "data", "tokenise while training: for more text than the disk holds twice")
    valid_data: tuple[str, ...] = option((), texts, "data", "validate on these (default: a part of --data)", "PATH")
    valid_fraction: float = option(0.01, number(0, 0.5), "data", "part of --data kept for validation; 0 for none")
    tokenizer: str = option(
        None, text, "data", "bytes, bpe:SIZE (trained on --data) or a path (default: bpe:4096, or that of DIR)", "T"
    )
    context: int = option(512, length, "data", "tokens of a training sequence")

    from_: str | None = option(None, text, "start", "start from the weights of a run, an export or a conversion", "DIR")
    freeze: tuple[str, ...] = option((), texts, "start", PATTERNS, "PATTERN")
    stages: tuple[str, ...] = option(
        (),
        texts,
        "start",
        "for so many tokens train only what matches, such as 1M:moves; at last all",
        "N:PATTERN",
    )
    lora: int | None = option(None, count, "start", "train adapters of this rank beside the frozen weights", "RANK")
    lora_merge: bool = option(True, flag, "start", "put the adapters into the weights that are saved (default)")
    teacher: str | None = option(None, text, "teacher", "learn from the predictions of this model too", "DIR")
    distill: float | None = option(None, number(0, 1), "teacher", "their weight in the loss (default: 0.5)", "X")
    temperature: float | None = option(None, number(0.01, 100), "teacher", "of both models (default: 1)", "X")
    teacher_top: int | None = option(
        None, count, "teacher", "keep its likeliest tokens on the disk, so many, so that it reads each text once", "N"
    )

    tokens: int = option(10_000_000, count, "training", "tokens to train on in all, such as 3M or 1.5G")
    batch: int = option(8, count, "training", "sequences per step, over all devices")
    accumulate: int = option(1, count, "training", "parts a step's batch is computed in, to save memory")
    gradient_checkpointing: bool = option(False, flag, "training", "recompute activations to save memory")
    optimizer: str = option("adamw", choice("adamw", "muon"), "training", "adamw, or muon for matrices", "O")
    lr: float | None = option(
        None, number(0, 1), "training", "peak learning rate (default: by model size; a tenth of that with --from)", "LR"
    )
    schedule: str = option(
        "cosine", choice("cosine", "linear", "constant", "wsd"), "training", "after the warm-up", "S"
    )
    final_lr: float = option(0.1, number(0, 1), "training", "learning rate at the end, as a fraction of --lr", "X")
    warmup: float = option(0.05, number(0, 1e9), "training", "warm-up steps; below 1, a fraction of the steps")
    weight_decay: float = option(0.1, number(0, 10), "training", "of matrices; norms and embeddings have none", "X")
    seed: int = option(0, whole, "training", "of the weights and of the order of the data")
    on_nan: str = option(
        "stop",
        choice("stop", "skip"),
        "training",
        "at a loss that explodes or is no number: stop, or skip the step",
        "stop|skip",
    )
    dtype: str = option(
        "auto", choice("auto", "fp32", "bf16"), "training", "auto, fp32 or bf16 (autocast; weights stay fp32)", "T"
    )

    out: str = option("runs/foveate", text, "run directory", "the run directory", "DIR")
    save_every: int | None = option(None, count, "run directory", "steps between checkpoints (default: a tenth)")
    keep: int = option(2, count, "run directory", "checkpoints to keep, the newest ones")
    keep_best: bool = option(True, flag, "run directory", "keep that of the best validation too (default)")
    log_every: int | None = option(None, count, "run directory", "steps per line of metrics.jsonl")
    eval_every: int | None = option(None, count, "run directory", "steps between validations (default: a tenth)")
    eval_tokens: int | None = option(None, count, "run directory", "validation tokens to score each time")
    sample_every: int | None = option(None, count, "run directory", "steps between texts that it writes into the log")
    sample_prompt: str = option("The", text, "run directory", "what those texts begin with", "TEXT")
    tensorboard: bool = option(False, flag, "run directory", "write TensorBoard event files too")
    report_to: tuple[str, ...] = option((), texts, "run directory", f"tell these too: {', '.join(TRACKERS)}", "TRACKER")
    compile: bool = option(False, flag, "run directory", "compile the model: minutes at first, then faster")
    workers: int = option(0, whole, "run directory", "processes that read data; 0 is best for files on disk")
    parallel: str = option(
        "ddp",
        choice("ddp", "fsdp"),
        "run directory",
        "of several processes, under torchrun: each has the model (ddp) or a part of it (fsdp)",
        "ddp|fsdp",
    )
    device: str = option("auto", choice("auto", "cpu", "cuda", "mps"), "run directory", "auto, cpu, cuda or mps", "D")

    def __post_init__(self) -> None:
        if self.tokenizer is None:
            object.__setattr__(self, "tokenizer", self.from_ or self.teacher or "bpe:4096")
        for setting in fields(self):
            value = getattr(self, setting.name)
            if value is None and setting.default is None:
                continue
            try:
                object.__setattr__(self, setting.name, setting.metadata["read"](value))
            except FoveateError as error:
                names_itself = setting.name in ("walk", "levels")
                raise FoveateError(f"{error}" if names_itself else f"{flag_name(setting.name)}: {error}") from None
        self._check()
        check_together(self)

    def _check(self) -> None:
        if self.context < 2:
            raise FoveateError(f"--context: {self.context} leaves no token to predict; write 2 or more, such as 512")
        if self.batch % self.accumulate:
            raise FoveateError(f"--accumulate: {self.accumulate} does not divide --batch {self.batch} into equal parts")
        if not self.data:
            raise FoveateError("--data: nothing is named; write a file, a folder, or books for the bundled ones")
        spec = self.spec
        if self.model == "llama" and (spec.strides != (1,) or any(run.attention != FULL for run in spec.runs)):
            raise FoveateError(f"--model llama is plain, walk '{spec}' is not; write for example --walk 12@1")

    @property
    def spec(self) -> HierarchySpec:
        """The shape of the model.

        Raises:
            FoveateError: widths, heads and levels that make none.
        """
        return spec_from_config(config_values(self))

    @property
    def reading(self) -> Reading:
        """How documents are taken from the data."""
        return Reading(text_field=self.text_field, newlines=self.newlines, skip_unreadable=self.skip_unreadable)

    @property
    def tokens_per_step(self) -> int:
        return self.batch * self.context

    @property
    def steps(self) -> int:
        """Optimizer steps that reach ``tokens``, the last one whole."""
        return -(-self.tokens // self.tokens_per_step)

    @property
    def validation_tokens(self) -> int:
        """Tokens scored at each validation: so many that all of them together cost about a fiftieth of the training."""
        return self.eval_tokens or max(20_000, min(1_000_000, self.tokens // 200))

    def resolve(self, *, parameters: int) -> TrainSettings:
        """The same run with nothing left open, for a model of that many parameters, the embedding not counted."""
        tenth = -(-self.steps // 10)
        return replace(
            self._with_absolute_paths(),
            lr=self.lr if self.lr is not None else default_lr(parameters, tuned=bool(self.from_) and not self.lora),
            save_every=self.save_every or min(tenth, 1000),
            log_every=self.log_every or max(1, min(10, self.steps // 50)),
            eval_every=self.eval_every or min(tenth, 1000),
            eval_tokens=self.validation_tokens,
        )

    def resumed_with(self, given: Mapping[str, Any]) -> TrainSettings:
        """These settings, a run's own, with what ``--resume`` may change taken from ``given``.

        Raises:
            FoveateError: ``given`` differs from the run in a setting that would make it another run.
        """
        decided = {name: value for name, value in given.items() if value not in (None, "auto")}
        asked = replace(self, **decided)._with_absolute_paths()
        for name in decided:
            mine, wanted = getattr(self, name), getattr(asked, name)
            if mine != wanted and name not in FREE_ON_RESUME + CHANGEABLE_ON_RESUME + MOVABLE:
                raise FoveateError(
                    f"{flag_name(name)}: the run was started with {mine!r}, not {wanted!r}; "
                    f"leave it out to resume, or choose another --out for a new run"
                )
        return asked

    def _with_absolute_paths(self) -> TrainSettings:
        """Files named independently of the working directory, so that a run resumes from anywhere."""
        named: dict[str, Any] = {}
        for name in FILES:
            value = getattr(self, name)
            if value is not None:
                named[name] = tuple(map(_absolute, value)) if isinstance(value, tuple) else _absolute(value)
        return replace(self, **named)

    def command(self, *, public: bool = False) -> str:
        """The command line that trains this model: what differs from the defaults and matters to the model.

        ``public``: for a model card, which tells neither where files were nor where the run went.
        """
        words = ["foveate", "train"]
        plain = TrainSettings(from_=self.from_, teacher=self.teacher)  # what a start brings need not be said
        for setting in fields(self):
            name, value = setting.name, getattr(self, setting.name)
            brought = self.from_ is not None and setting.metadata["group"] in ("shape", "model")
            if value == setting.default or name in UNTOLD or brought or (public and name == "out"):
                continue
            if name == "tokenizer" and value == plain.tokenizer:
                continue
            if public and name in FILES:
                value = tuple(map(_file_name, value)) if isinstance(value, tuple) else _file_name(value)
            words += _flag_words(name, value)
        return shlex.join(words)

    def to_yaml(self) -> str:
        import yaml

        plain = {
            name.rstrip("_"): list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }
        return "# foveate train --config THIS-FILE --out DIR repeats this run\n" + yaml.safe_dump(
            plain, sort_keys=False, allow_unicode=True
        )


def flag_name(name: str) -> str:
    return "--" + name.strip("_").replace("_", "-")


def _flag_words(name: str, value: Any) -> list[str]:
    """A setting as words of a command line that reads it back."""
    spelled = flag_name(name)
    if isinstance(value, bool):
        return [spelled if value else spelled.replace("--", "--no-", 1)]
    if isinstance(value, Mapping):
        return [
            spelled,
            *(f"{stride}:{','.join(f'{k}={v}' for k, v in level.items())}" for stride, level in value.items()),
        ]
    values = [str(one) for one in (value if isinstance(value, tuple) else [value])]
    if any(one.startswith("-") for one in values):  # which would be read as a flag
        return [f"{spelled}={one}" for one in values]
    return [spelled, *values]


def default_lr(parameters: int, *, tuned: bool = False) -> float:
    """A peak rate for AdamW that falls with the size of the model to the power 0.4, at most 6e-3.

    It is 4e-3 at 3 million parameters, which all walks of experiments/rates.yaml bear (4e-3 and 8e-3 were the best),
    and so 9e-4 at 125 million and 3e-4 at 1.5 billion, close to what published models of those sizes used. The
    embedding does not count. Weights that are only ``tuned`` further bear a tenth.
    """
    peak = min(6e-3, 4e-3 * (3e6 / max(1, parameters)) ** 0.4)
    return float(f"{peak / 10 if tuned else peak:.2g}")


def _absolute(name: str) -> str:
    named = Path(name).expanduser()
    is_path = name != "books" and (named.exists() or any(sign in name for sign in "*?["))
    return str(Path.cwd() / named) if is_path else name


def _file_name(name: str) -> str:
    """A path without its folders; what is no path, such as ``hf:owner/name``, as it is."""
    return Path(name).name if Path(name).is_absolute() else name


def settings_of(folder: str | os.PathLike[str]) -> TrainSettings | None:
    """What a run directory, or a checkpoint of one, was trained with; None for any other folder."""
    file = Path(folder) / SETTINGS_FILE
    return TrainSettings(**read_settings_file(file)) if file.is_file() else None


def read_settings_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings a YAML file gives, names checked; values are checked when ``TrainSettings`` is made of them."""
    import yaml

    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FoveateError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FoveateError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise FoveateError(f"{path} is not a mapping of settings; write lines such as 'hidden: 256'")
    names = [setting.name.rstrip("_") for setting in fields(TrainSettings)]
    read = {}
    for key, value in given.items():
        name = str(key).replace("-", "_")
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            raise FoveateError(
                f"{path}: there is no setting {key!r}" + (f"; did you mean {close[0]}?" if close else "")
            )
        read["from_" if name == "from" else name] = value
    return read
