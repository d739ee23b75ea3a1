"""Everything that decides a training run, as one frozen dataclass; flags, the YAML file and the API are views of it.

Each field carries how its value is read (from a flag, from YAML or from code alike) and the help of its flag.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from foveate import values
from foveate.errors import FoveateError
from foveate.presets import resolve_walk
from foveate.shape import config_values, read_levels, spec_from_config
from foveate.spec import EXPANDINGS, FULL, POOLINGS, HierarchySpec

SETTINGS_FILE = "foveate.yaml"

# what --resume may change: the first changes nothing that is computed but its rounding, the second is meant to
FREE_ON_RESUME = (
    "out",
    "save_every",
    "keep",
    "keep_best",
    "log_every",
    "eval_every",
    "eval_tokens",
    "tensorboard",
    "workers",
    "device",
    "parallel",
    "accumulate",
    "gradient_checkpointing",
)
CHANGEABLE_ON_RESUME = ("tokens", "lr", "final_lr", "on_nan")
# what a command that is told to others leaves out: it makes no other model
UNTOLD = set(FREE_ON_RESUME) - {"out", "parallel", "accumulate", "gradient_checkpointing"}
FILES = ("data", "valid_data", "tokenizer")


def _count(value: Any) -> int:
    return _read_with(values.count, value)


def _length(value: Any) -> int:
    return _read_with(values.length, value)


def _read_with(reader: Callable[[str], int], value: Any) -> int:
    try:
        return reader(str(value))
    except argparse.ArgumentTypeError as error:
        raise FoveateError(str(error)) from None


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch("[0-9]{1,18}", str(value)):
        raise FoveateError(f"{value!r} is not a whole number from 0")
    return int(value)


def _number(low: float, high: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if isinstance(value, bool) or not low <= number <= high:
            raise FoveateError(f"{value!r} is not a number from {low:g} to {high:g}")
        return number

    return read


def _choice(*options: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in options:
            raise FoveateError(f"{value!r} is unknown; choose one of {', '.join(options)}")
        return value

    return read


def _text(value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise FoveateError(f"{value!r} is not a text")
    return str(value)


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, os.PathLike)):
        return (_text(value),)
    if not isinstance(value, (list, tuple)):
        raise FoveateError(f"{value!r} is not a list of texts")
    return tuple(map(_text, value))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise FoveateError(f"{value!r} is neither true nor false")
    return value


def _walk(value: Any) -> str:
    return resolve_walk(str(value))


def _option(default: Any, read: Callable[[Any], Any], group: str, help: str, metavar: str | None = None) -> Any:
    return field(default=default, metadata={"read": read, "group": group, "help": help, "metavar": metavar})


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """A training run. ``None`` means "decided by the size of the run" until :meth:`resolve` has filled it in.

    Raises:
        FoveateError: a value out of range, named with its flag.
    """

    model: str = _option(
        "foveate", _choice("foveate", "llama"), "model", "foveate, or llama: transformers' own", "KIND"
    )
    walk: str = _option("2@1 8@4 2@1", _walk, "shape", "")
    hidden: int = _option(256, _count, "shape", "")
    heads: int | None = _option(None, _count, "shape", "")
    kv_heads: int | None = _option(None, _count, "shape", "")
    ff: int | None = _option(None, _count, "shape", "")
    levels: dict[str, dict[str, int]] | None = _option(None, read_levels, "shape", "")  # noqa: RUF009
    pooling: str = _option("mean", _choice(*POOLINGS), "shape", "")
    expanding: str = _option("repeat", _choice(*EXPANDINGS), "shape", "")

    data: tuple[str, ...] = _option(
        ("books",), _texts, "data", "files, folders, globs, hf:NAME, or books (bundled)", "PATH"
    )
    text_field: str = _option("text", _text, "data", "the field of a .jsonl line that holds the text", "NAME")
    stream: bool = _option(False, _flag, "data", "tokenise while training: for more text than the disk holds twice")
    valid_data: tuple[str, ...] = _option((), _texts, "data", "validate on these (default: a part of --data)", "PATH")
    valid_fraction: float = _option(0.01, _number(0, 0.5), "data", "part of --data kept for validation; 0 for none")
    tokenizer: str = _option("bpe:4096", _text, "data", "bytes, bpe:SIZE (trained on --data) or a path", "T")
    context: int = _option(512, _length, "data", "tokens of a training sequence")

    tokens: int = _option(10_000_000, _count, "training", "tokens to train on in all, such as 3M or 1.5G")
    batch: int = _option(8, _count, "training", "sequences per step, over all devices")
    accumulate: int = _option(1, _count, "training", "parts a step's batch is computed in, to save memory")
    gradient_checkpointing: bool = _option(False, _flag, "training", "recompute activations to save memory")
    lr: float | None = _option(None, _number(0, 1), "training", "peak learning rate (default: by model size)", "LR")
    schedule: str = _option(
        "cosine", _choice("cosine", "linear", "constant", "wsd"), "training", "after the warm-up", "S"
    )
    final_lr: float = _option(0.1, _number(0, 1), "training", "learning rate at the end, as a fraction of --lr", "X")
    warmup: float = _option(0.05, _number(0, 1e9), "training", "warm-up steps; below 1, a fraction of the steps")
    weight_decay: float = _option(0.1, _number(0, 10), "training", "of matrices; norms and embeddings have none", "X")
    seed: int = _option(0, _whole, "training", "of the weights and of the order of the data")
    on_nan: str = _option(
        "stop",
        _choice("stop", "skip"),
        "training",
        "at a loss that explodes or is no number: stop, or skip the step",
        "stop|skip",
    )
    dtype: str = _option(
        "auto", _choice("auto", "fp32", "bf16"), "training", "auto, fp32 or bf16 (autocast; weights stay fp32)", "T"
    )

    out: str = _option("runs/foveate", _text, "run directory", "the run directory", "DIR")
    save_every: int | None = _option(None, _count, "run directory", "steps between checkpoints (default: a tenth)")
    keep: int = _option(2, _count, "run directory", "checkpoints to keep, the newest ones")
    keep_best: bool = _option(True, _flag, "run directory", "keep that of the best validation too (default)")
    log_every: int | None = _option(None, _count, "run directory", "steps per line of metrics.jsonl")
    eval_every: int | None = _option(None, _count, "run directory", "steps between validations (default: a tenth)")
    eval_tokens: int | None = _option(None, _count, "run directory", "validation tokens to score each time")
    tensorboard: bool = _option(False, _flag, "run directory", "write TensorBoard event files too")
    workers: int = _option(0, _whole, "run directory", "processes that read data; 0 is best for files on disk")
    parallel: str = _option(
        "ddp",
        _choice("ddp", "fsdp"),
        "run directory",
        "of several processes, under torchrun: each has the model (ddp) or a part of it (fsdp)",
        "ddp|fsdp",
    )
    device: str = _option("auto", _choice("auto", "cpu", "cuda", "mps"), "run directory", "auto, cpu, cuda or mps", "D")

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if value is None and option.default is None:
                continue
            try:
                object.__setattr__(self, option.name, option.metadata["read"](value))
            except FoveateError as error:
                names_itself = option.name in ("walk", "levels")
                raise FoveateError(f"{error}" if names_itself else f"{flag_name(option.name)}: {error}") from None
        self._check()

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
            lr=self.lr if self.lr is not None else default_lr(parameters),
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
            if mine != wanted and name not in FREE_ON_RESUME + CHANGEABLE_ON_RESUME:
                raise FoveateError(
                    f"{flag_name(name)}: the run was started with {mine!r}, not {wanted!r}; "
                    f"leave it out to resume, or choose another --out for a new run"
                )
        return asked

    def _with_absolute_paths(self) -> TrainSettings:
        """Files named independently of the working directory, so that a run resumes from anywhere."""
        data, valid_data = (tuple(map(_absolute, names)) for names in (self.data, self.valid_data))
        return replace(self, data=data, valid_data=valid_data, tokenizer=_absolute(self.tokenizer))

    def command(self, *, public: bool = False) -> str:
        """The command line that trains this model: what differs from the defaults and matters to the model.

        ``public``: for a model card, which tells neither where files were nor where the run went.
        """
        words = ["foveate", "train"]
        for option in fields(self):
            name, value = option.name, getattr(self, option.name)
            if value == option.default or name in UNTOLD or (public and name == "out"):
                continue
            if public and name in FILES:
                value = tuple(map(_file_name, value)) if isinstance(value, tuple) else _file_name(value)
            words += _flag_words(name, value)
        return shlex.join(words)

    def to_yaml(self) -> str:
        import yaml

        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return "# foveate train --config THIS-FILE --out DIR repeats this run\n" + yaml.safe_dump(
            plain, sort_keys=False, allow_unicode=True
        )


def flag_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def _flag_words(name: str, value: Any) -> list[str]:
    """A setting as words of a command line that reads it back."""
    flag = flag_name(name)
    if isinstance(value, bool):
        return [flag if value else flag.replace("--", "--no-", 1)]
    if isinstance(value, Mapping):
        return [
            flag,
            *(f"{stride}:{','.join(f'{k}={v}' for k, v in level.items())}" for stride, level in value.items()),
        ]
    values = [str(one) for one in (value if isinstance(value, tuple) else [value])]
    if any(one.startswith("-") for one in values):  # which would be read as a flag
        return [f"{flag}={one}" for one in values]
    return [flag, *values]


def default_lr(parameters: int) -> float:
    """A peak rate for AdamW that falls with the size of the model to the power 0.4, at most 6e-3.

    It is 4e-3 at 3 million parameters, which all walks of experiments/rates.yaml bear (4e-3 and 8e-3 were the best),
    and so 9e-4 at 125 million and 3e-4 at 1.5 billion, close to what published models of those sizes used. The
    embedding does not count.
    """
    return float(f"{min(6e-3, 4e-3 * (3e6 / max(1, parameters)) ** 0.4):.2g}")


def _absolute(name: str) -> str:
    named = Path(name).expanduser()
    is_path = name != "books" and (named.exists() or any(sign in name for sign in "*?["))
    return str(Path.cwd() / named) if is_path else name


def _file_name(name: str) -> str:
    """A path without its folders; what is no path, such as ``hf:owner/name``, as it is."""
    return Path(name).name if Path(name).is_absolute() else name


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
    names = [option.name for option in fields(TrainSettings)]
    read = {}
    for key, value in given.items():
        name = str(key).replace("-", "_")
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            raise FoveateError(
                f"{path}: there is no setting {key!r}" + (f"; did you mean {close[0]}?" if close else "")
            )
        read[name] = value
    return read
