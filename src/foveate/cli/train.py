"""``foveate train``: from text files to a model that generates."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.cli.shape import add_shape_arguments
from foveate.errors import FoveateError
from foveate.train.settings import TrainSettings, flag_name, read_settings_file
from foveate.train.signals import sigterm_interrupts

if TYPE_CHECKING:
    from foveate.train.run import RunResult

HELP = "train a multi-scale language model, or go on with a run"
EXAMPLES = """examples:
  foveate train --walk "2@1 8@4 2@1" --data my-texts/ --tokens 10M --out runs/mine
  foveate train --walk hourglass:24 --hidden 512 --data "corpus/*.jsonl.xz" --tokenizer bpe:16384 --tokens 1.5G
  foveate train --resume runs/mine                      go on where it stopped
  foveate train --from runs/mine --data other/ --lora 8 --out runs/tuned           other data, adapters merged
  foveate train --walk "1@1 8@4 1@1" --teacher runs/big --teacher-top 32 --data my-texts/ --out runs/student
  torchrun --nproc-per-node 8 -m foveate train ...      on eight GPUs: the same command, the same run
  foveate train --config runs/mine/foveate.yaml --out runs/again"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shape = {option.name: None for option in dataclasses.fields(TrainSettings) if _group(option) == "shape"}
    add_shape_arguments(parser, walk=TrainSettings.walk)
    # None means "not given": the settings file, and then the settings' own defaults, have their say
    parser.set_defaults(**shape)
    groups: dict[str, Any] = {}
    for option in dataclasses.fields(TrainSettings):
        name = _group(option)
        if name == "shape":
            continue
        if name not in groups:
            groups[name] = parser.add_argument_group(name if name != "model" else "baseline")
        groups[name].add_argument(flag_name(option.name), dest=option.name, **_describe(option))
    parser.add_argument("--config", metavar="FILE", help="read settings from a YAML file; flags override it")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="DIR",
        help="go on with the run in DIR (default: --out) from its newest whole checkpoint",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    parser.add_argument("--json", action="store_true", help="the metrics, then the result, as JSON lines on stdout")


def _group(option: dataclasses.Field[Any]) -> str:
    return option.metadata["group"]


def _describe(option: dataclasses.Field[Any]) -> dict[str, Any]:
    default = option.default
    help = option.metadata["help"]
    if default not in (None, (), False) and "(default" not in help:
        shown = " ".join(default) if isinstance(default, tuple) else default
        help += f" (default: {f'{shown:,}' if isinstance(shown, int) else shown})"
    if isinstance(default, bool):
        return {"action": argparse.BooleanOptionalAction, "default": None, "help": help}
    described: dict[str, Any] = {"metavar": option.metadata["metavar"] or "N", "help": help.replace("%", "%%")}
    if isinstance(default, tuple):
        described |= {"nargs": "+", "action": "extend"}
    return described


def run(args: argparse.Namespace) -> int:
    given = read_settings_file(args.config) if args.config else {}
    names = {option.name for option in dataclasses.fields(TrainSettings)}
    given |= {name: value for name, value in vars(args).items() if name in names and value is not None}
    if args.resume and args.overwrite:
        raise FoveateError("--resume goes on with a run and --overwrite replaces it; give one of them")
    is_main = os.environ.get("RANK", "0") == "0"  # of several processes, under torchrun
    try:
        settings = None if args.resume else TrainSettings(**given)
    except FoveateError:
        if is_main:
            raise
        return 2  # process 0 says why

    folder = args.resume if isinstance(args.resume, str) else given.get("out", TrainSettings.out)
    given.pop("out", None)
    on_record = _print_json if args.json else _print_nothing
    alone = "WORLD_SIZE" not in os.environ  # torchrun has signals of its own
    try:
        with sigterm_interrupts() if alone else contextlib.nullcontext():
            # torch and transformers take seconds to import: after what can be said without them
            from foveate.train.run import resume, train

            if settings is None:
                result = resume(folder, given, on_record=on_record)
            else:
                result = train(settings, overwrite=args.overwrite, on_record=on_record)
    except KeyboardInterrupt as interrupt:
        if not alone:
            raise
        _print_interrupted(Path(folder))
        return 128 + (interrupt.args or (signal.SIGINT,))[0]
    if not is_main:
        return result.exit_code
    if args.json:
        _print_json(_as_json(result))
    elif result.finished:
        print(_describe_result(result))
    if not result.finished:
        _print_stopped(result)
    return result.exit_code


def _print_json(record: dict[str, Any]) -> None:
    print(json.dumps(record), flush=True)


def _print_nothing(record: dict[str, Any]) -> None:
    pass


def _as_json(result: RunResult) -> dict[str, Any]:
    return {
        "kind": "result",
        "run": str(result.path),
        "finished": result.finished,
        "step": result.step,
        "steps": result.steps,
        "params": result.parameters,
        "tokens": result.train.get("tokens"),
        "loss": result.train.get("loss"),
        "bpb": result.valid.get("bpb"),
        "seconds": result.train.get("elapsed"),
    }


def _describe_result(result: RunResult) -> str:
    from foveate.train.display import duration

    valid = f", validation {result.valid['bpb']:.4f} bits per byte" if result.valid else ""
    return (
        f"{result.path}: {result.parameters:,} parameters, {result.train['tokens']:,} tokens in "
        f"{duration(result.train['elapsed'])}, loss {result.train['loss']:.4f}{valid}"
    )


def _print_interrupted(run: Path) -> None:
    from foveate.loading.manifest import checkpoint_steps

    steps = checkpoint_steps(run)
    line = "interrupted before the first checkpoint; nothing was saved"
    if steps:
        line = f"interrupted; the newest checkpoint is of step {steps[0]:,}; resume with: foveate train --resume {run}"
    print(line, file=sys.stderr)


def _print_stopped(result: RunResult) -> None:
    print(
        f"stopped at step {result.step:,} of {result.steps:,}; resume with: foveate train --resume {result.path}",
        file=sys.stderr,
    )
