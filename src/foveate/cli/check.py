"""``foveate check``: which promises a causal language model keeps."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.values import count, length

if TYPE_CHECKING:
    from foveate.promises.report import Finding, Report

HELP = "check that a model keeps its promises: causal, the same with a cache, with padding, in a batch ..."
EXAMPLES = """examples:
  foveate check runs/hourglass
  foveate check path/to/any/causal-lm --dtype bf16 --out report
  foveate check --architecture qwen3 mamba2           tiny random models, of transformers' own classes
  foveate check --architecture gemma3_text --only cached cropped --json

The exit code is 0 if every promise that a model offers is kept, 1 if one is broken, 2 if there is nothing to check.
docs/check.md says what each promise is and how a fault is told from rounding."""

BROKEN = 1
PLAIN_WIDTH = 140  # columns, where the output is not a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL", help="a run, a folder, a .gguf file, a name on the hub")
    parser.add_argument(
        "--architecture",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="also check a tiny random model of this model type of transformers, such as qwen3",
    )
    parser.add_argument("--only", nargs="+", action="extend", metavar="PROMISE", help="check these promises alone")
    parser.add_argument("--quick", action="store_true", help="the most important promises alone, on shorter texts")
    parser.add_argument("--length", type=length, metavar="N", help="tokens of the longest text (default: 24, or more)")
    parser.add_argument("--dtype", default="fp32", metavar="T", help="fp32, bf16, fp16 or auto (default: fp32)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--threads", type=count, metavar="N", help="threads of the CPU (default: torch's choice)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of texts and tiny models (default: 0)")
    parser.add_argument("--json", action="store_true", help="one JSON object per promise on standard output")
    parser.add_argument("--out", metavar="DIR", help="write a page there (default: print the table alone)")


def run(args: argparse.Namespace) -> int:
    from foveate.errors import FoveateError

    if not args.models and not args.architecture:
        raise FoveateError("there is no model to check; name one, or --architecture NAME")
    import torch

    from foveate.report.files import check_folder

    if args.out:
        check_folder(Path(args.out))
    if args.threads:
        torch.set_num_threads(args.threads)
    reports = [_check(args, name, tiny=tiny) for name, tiny in _subjects(args)]
    if not args.json:
        _print(reports)
    if args.out:
        from foveate.report.promises import write_page

        records = [record for report in reports for record in report.records()]
        page = write_page(records, Path(args.out), command=_command(args))
        print(f"report: {page}", file=sys.stderr if args.json else sys.stdout)
    return BROKEN if any(report.broken for report in reports) else 0


def _subjects(args: argparse.Namespace) -> list[tuple[str, bool]]:
    return [*((path, False) for path in args.models), *((name, True) for name in args.architecture)]


def _check(args: argparse.Namespace, name: str, *, tiny: bool) -> Report:
    from foveate.devices import pick_device, read_dtype
    from foveate.loading import load_model, quiet_transformers
    from foveate.promises.check import check

    if tiny:
        from foveate.promises.architectures import tiny_model

        with quiet_transformers():
            model: Any = tiny_model(name, seed=args.seed, dtype=read_dtype(args.dtype)).to(pick_device(args.device))
    else:
        model = load_model(name, device=args.device, dtype=args.dtype)
    report = check(
        model,
        promises=args.only,
        quick=args.quick,
        length=args.length,
        seed=args.seed,
        name=name,
        on_finding=_progress(name),
    )
    if args.json:
        for record in report.records():
            print(json.dumps(record), flush=True)
    return report


def _progress(model: str) -> Any:
    """On a terminal the promise that has just been checked, in one line that is written over."""

    def show(finding: Finding) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{model}: {finding.name}: {finding.state}", end="", file=sys.stderr, flush=True)

    return show


def _print(reports: list[Report]) -> None:
    from rich.console import Console

    from foveate.report.promises import print_matrix, print_promises

    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    records = [report.records() for report in reports]
    if len(reports) == 1:
        print_promises(records[0], console)
    else:
        print_matrix(records, console)
    for report in reports:
        print(report, flush=True)


def _command(args: argparse.Namespace) -> str:
    """The command line again, without what was left at its default."""
    defaults = argparse.ArgumentParser()
    add_arguments(defaults)
    words = ["foveate", "check", *args.models]
    for name, value in vars(args).items():
        if name in ("models", "json", "out", "debug") or not value or value == defaults.get_default(name):
            continue
        words.append(f"--{name}")
        words += [] if value is True else map(str, value if isinstance(value, list) else [value])
    return shlex.join(words)
