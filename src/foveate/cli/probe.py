"""``foveate probe``: what a causal language model makes of its context and of its training text."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
from pathlib import Path

from foveate.probes.probe import KINDS

HELP = "ask any causal language model what it uses: word order, topic, context, how often it saw a word"
EXAMPLES = """examples:
  foveate probe shuffle path/to/any/causal-lm --data book.txt more.jsonl
  foveate probe rare runs/plain runs/retina --train train.jsonl --data held-out.jsonl
  foveate probe truncate runs/mine --data held-out.jsonl --out probes/mine

foveate probe KIND --help tells more about one of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True, parser_class=type(parser))
    for name in KINDS:
        module = importlib.import_module(f"foveate.probes.{name}")
        probe = kinds.add_parser(name, help=module.HELP, description=module.HELP, epilog=module.EXAMPLES)
        module.add_arguments(probe)
        probe.add_argument(
            "--out",
            metavar="DIR",
            help="folder for index.html, the figures and results.jsonl; a probe that was interrupted goes on there",
        )
        probe.add_argument("--json", action="store_true", help="one JSON object per line on standard output")
        probe.set_defaults(run_probe=module.run, default_of=probe.get_default)


def run(args: argparse.Namespace) -> None:
    from foveate.report.files import check_folder, write_probe
    from foveate.report.screen import screen

    folder = Path(args.out) if args.out else None
    if folder is not None:
        check_folder(folder)
    args.out = folder
    finding = args.run_probe(args)
    if folder is not None:
        title = f"foveate probe {args.kind}: {' and '.join(_models(args))}"
        page = write_probe(finding.records, finding.plots(finding.records), folder, title=title, command=_command(args))
    if args.json:
        for record in [*finding.records, *finding.advice]:
            print(json.dumps(record))
        return
    console = screen()
    for part in finding.said:
        console.print(part, markup=False, soft_wrap=isinstance(part, str))
    if folder is not None:
        print(f"\nreport: {page} (numbers: {folder / 'results.jsonl'})")


def _models(args: argparse.Namespace) -> list[str]:
    return [getattr(args, name) for name in ("model", "model_a", "model_b") if hasattr(args, name)]


def _command(args: argparse.Namespace) -> str:
    """The command line again, without what was left at its default."""
    words = ["foveate", "probe", args.kind, *_models(args)]
    for name, value in vars(args).items():
        aside = ("kind", "model", "model_a", "model_b", "json", "debug", "run_probe", "default_of")
        if name in aside or value in (None, args.default_of(name)):
            continue
        words.append("--" + name.replace("_", "-"))
        words += [] if value is True else map(str, value if isinstance(value, list) else [value])
    return shlex.join(words)
