"""``foveate probe``: what a causal language model makes of its context and of its training text. A module per probe."""

from __future__ import annotations

import argparse
import importlib

HELP = "ask any causal language model what it uses: word order, topic, how often it saw a word"
EXAMPLES = """examples:
  foveate probe shuffle path/to/any/causal-lm --data book.txt more.jsonl
  foveate probe rare runs/plain runs/retina --train train.jsonl --data held-out.jsonl

foveate probe KIND --help tells more about one of them."""

KINDS = ("shuffle", "rare")  # each in its own module, which defines what a command module defines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True, parser_class=type(parser))
    for name in KINDS:
        module = importlib.import_module(f"foveate.cli.probe_{name}")
        probe = kinds.add_parser(name, help=module.HELP, description=module.HELP, epilog=module.EXAMPLES)
        module.add_arguments(probe)
        probe.set_defaults(run_probe=module.run)


def run(args: argparse.Namespace) -> int | None:
    return args.run_probe(args)
