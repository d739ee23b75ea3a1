"""``foveate compare``: models side by side: quality, memory, speed; of a single run its learning curve."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.data.reading import add_reading_arguments, reading_of
from foveate.values import count, length, seed

if TYPE_CHECKING:
    from foveate.bench.compare import Plan, Record
    from foveate.bench.subjects import Subject

HELP = "compare trained models: quality, memory, speed; or show how one learnt"
EXAMPLES = """examples:
  foveate compare runs/plain runs/hourglass --data held-out.txt --out report
  foveate compare runs/plain runs/hourglass             on what the runs themselves held out, the table alone
  foveate compare runs/mine                             one run: its numbers, and its learning curve
  foveate compare path/to/any/causal-lm runs/mine --data held-out.jsonl.xz --prompt "It was a dark night" --json

The first model is the one that the others are compared with. Differences in bits per byte are paired: both models on
the same pieces of text, with a 95% bootstrap interval over these."""

PLAIN_WIDTH = 110  # columns, where the output is not a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="+", metavar="RUN", help="run directories, or any Hugging Face causal language models'"
    )
    parser.add_argument("--out", metavar="DIR", help="write a page with plots there (default: print the table alone)")
    parser.add_argument("--json", action="store_true", help="one JSON object per measurement on standard output")
    text = parser.add_argument_group("quality")
    text.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        help="text to score: files, folders, globs, hf:NAME, or books (default: what the runs held out)",
    )
    add_reading_arguments(text)
    text.add_argument("--bytes", type=count, metavar="N", help="score no more text than this, for a quick look")
    text.add_argument(
        "--context",
        type=length,
        metavar="N",
        help="tokens of a window, in training and decoding too (default: the runs')",
    )
    cost = parser.add_argument_group("memory and speed")
    cost.add_argument(
        "--batch", type=count, metavar="N", help="sequences of a training step (default: the first run's)"
    )
    cost.add_argument(
        "--decode-context",
        type=length,
        action="append",
        default=[],
        metavar="N",
        help="tokens read before decoding, repeatable (default: 1, 4 and 16 times the context)",
    )
    cost.add_argument("--decode-tokens", type=count, default=64, metavar="N", help="tokens per timing (default: 64)")
    cost.add_argument("--repeats", type=count, default=5, metavar="N", help="timings, in turn (default: 5)")
    cost.add_argument("--threads", type=count, metavar="N", help="threads of the CPU (default: torch's choice)")
    cost.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")
    writing = parser.add_argument_group("samples")
    writing.add_argument("--prompt", metavar="TEXT", help="let every model go on with it")
    writing.add_argument("--tokens", type=count, default=120, metavar="N", help="tokens to write (default: 120)")
    writing.add_argument("--temperature", type=float, default=0.8, metavar="X", help="default: 0.8")
    writing.add_argument("--seed", type=seed, default=0, metavar="N", help="default: 0")


def run(args: argparse.Namespace) -> None:
    import torch

    from foveate.bench.compare import Plan
    from foveate.bench.subjects import load_subjects
    from foveate.report.files import check_folder

    if args.out:
        check_folder(Path(args.out))
    if args.threads:
        torch.set_num_threads(args.threads)
    plan = Plan(
        data=tuple(args.data),
        reading=reading_of(args),
        max_bytes=args.bytes,
        context=args.context,
        batch=args.batch,
        decode_contexts=tuple(args.decode_context),
        decode_tokens=args.decode_tokens,
        repeats=args.repeats,
    )
    screen = Screen(json=args.json)
    subjects = load_subjects(args.models, device=args.device)
    if args.prompt:
        write_samples(screen, subjects, args.prompt, args.tokens, temperature=args.temperature, seed=args.seed)
    measure(screen, subjects, plan)
    title = " against ".join(subject.name for subject in reversed(subjects))
    show(screen, Path(args.out) if args.out else None, title=title, commands=[_command(args)])


def _command(args: argparse.Namespace) -> str:
    """The command line again, without what was left at its default."""
    defaults = argparse.ArgumentParser()
    add_arguments(defaults)
    words = ["foveate", "compare", *args.models]
    for name, value in vars(args).items():
        if name in ("models", "json", "debug") or value in (None, defaults.get_default(name)):
            continue
        flag = "--" + name.replace("_", "-")
        if name == "decode_context":
            words += [word for length in value for word in (flag, str(length))]
        else:
            words += [flag, *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


class Screen:
    """What a person reads, and the records. With ``json`` the records go to standard output and all else to standard
    error; without, only passing notes go to standard error."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.records: list[Record] = []

    def say(self, text: str = "", *, end: str = "\n") -> None:
        print(text, end=end, file=sys.stderr if self.json else sys.stdout, flush=True)

    def note(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def add(self, record: Record) -> None:
        self.records.append(record)
        if self.json:
            print(json.dumps(record), flush=True)


def write_samples(
    screen: Screen, subjects: Sequence[Subject], prompt: str, tokens: int, *, temperature: float, seed: int
) -> None:
    """Let every model go on with the prompt, shown as it is decoded."""
    from foveate.bench.compare import write_sample

    for subject in subjects:
        screen.say(f"{subject.name}:\n{prompt}", end="")
        record = write_sample(
            subject,
            prompt,
            tokens=tokens,
            temperature=temperature,
            seed=seed,
            on_text=lambda piece: screen.say(piece, end=""),
        )
        screen.say("\n")
        screen.add(record)


def measure(screen: Screen, subjects: Sequence[Subject], plan: Plan) -> None:
    from foveate.bench.compare import compare

    for record in compare(subjects, plan, note=screen.note):
        screen.add(record)


def show(screen: Screen, out: Path | None, *, title: str, commands: Sequence[str], notes: Sequence[str] = ()) -> None:
    """Print the table and the sentences; write the page if there is a folder for it."""
    from rich.console import Console

    from foveate.report.files import write_report
    from foveate.report.learning import cautions, print_learning
    from foveate.report.results import Results
    from foveate.report.tables import headline, print_table

    results = Results(screen.records)
    notes = (*cautions(results), *notes)
    if not screen.json:
        console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
        print_table(results, console)
        if len(results.names) == 1:
            print_learning(results, console)
        for sentence in (*headline(results), *notes):
            screen.say(sentence)
    if out is not None:
        page = write_report(results, out, title=title, commands=commands, notes=notes)
        screen.say(f"report: {page} (numbers: {page.parent / 'results.jsonl'})")
