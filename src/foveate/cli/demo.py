"""``foveate demo``: a multi-scale model and its plain twin, trained and compared in a few minutes."""

from __future__ import annotations

import argparse
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.cli.compare import Screen, measure, show, write_samples
from foveate.errors import FoveateError
from foveate.values import count, seed

if TYPE_CHECKING:
    from foveate.train.settings import TrainSettings

HELP = "train a multi-scale model and its plain twin, and compare them"
EXAMPLES = """examples:
  foveate demo                     some minutes on two cores; run it again to go on after an interruption
  foveate demo --out mine --tokens 5M --hidden 256
  foveate demo --quick --out try   a few seconds, to see that everything works; its numbers mean nothing"""

# the first is what the other is compared with; more than twice its layers are less work for the other
WALKS = {"plain": "8@1", "multi-scale": "1@1 4@4 8@16 4@4 2@1"}

SETTINGS: dict[str, Any] = {
    "data": ("books",),
    "valid_fraction": 0.02,
    "tokenizer": "bpe:2048",
    "context": 512,
    "batch": 4,
    "lr": 6e-3,
    "tokens": 1_000_000,
    "hidden": 128,
    "seed": 0,
    "eval_tokens": 16_000,
}
QUICK: dict[str, Any] = {
    "tokenizer": "bytes",
    "valid_fraction": 0.001,
    "context": 192,
    "tokens": 12_000,
    "hidden": 32,
    "eval_tokens": 1_000,
}
PROMPT = "The captain looked at the sea, and"
TEMPERATURE = 0.7
SAMPLE_TOKENS = 120
NOTES = ("Each model was trained once, and briefly. Another seed moves bits per byte by about 0.02: less is a tie.",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="demo", metavar="DIR", help="folder for runs and report (default: demo)")
    for name, help in (("tokens", "tokens to train each model on"), ("hidden", "width of both models")):
        default = SETTINGS[name]
        parser.add_argument(f"--{name}", type=count, metavar="N", help=f"{help} (default: {default:,})")
    parser.add_argument("--seed", type=seed, metavar="N", help="of weights, data order and samples (default: 0)")
    parser.add_argument(
        "--prompt", default=PROMPT, metavar="TEXT", help=f"for both to go on with (default: {PROMPT!r})"
    )
    parser.add_argument("--quick", action="store_true", help="tiny models, a few seconds")
    parser.add_argument("--overwrite", action="store_true", help="train again what is trained already")
    parser.add_argument("--json", action="store_true", help="one JSON object per measurement on standard output")


def run(args: argparse.Namespace) -> int:
    began = time.monotonic()
    out = Path(args.out)
    runs = _settings(args, out)
    _check_folder(out, runs, overwrite=args.overwrite)
    screen = Screen(json=args.json)
    screen.say(
        f"Two models of width {runs[0].hidden}, each trained on the same {runs[0].tokens:,} tokens of the bundled "
        f"books, in the same order and with the same settings."
    )
    for step, settings in enumerate(runs, 1):
        screen.say(f"\n[{step}/4] {Path(settings.out).name}: training {settings.walk}")
        code = _train(screen, settings, overwrite=args.overwrite)
        if code:
            screen.note(f"stopped; it goes on from there with: {_command(args)}")
            return code

    from foveate.bench.compare import Plan
    from foveate.bench.subjects import load_subjects

    subjects = load_subjects([settings.out for settings in runs])
    screen.say("\n[3/4] what they write\n")
    write_samples(screen, subjects, args.prompt, SAMPLE_TOKENS, temperature=TEMPERATURE, seed=runs[0].seed)
    screen.say("[4/4] measuring")
    measure(screen, subjects, Plan())
    show(screen, out, title="A multi-scale model and its plain twin", commands=[_command(args)], notes=NOTES)
    screen.say(f"took {time.monotonic() - began:.0f} s")
    return 0


def _settings(args: argparse.Namespace, out: Path) -> list[TrainSettings]:
    from foveate.train.settings import TrainSettings

    given = {name: getattr(args, name) for name in ("tokens", "hidden", "seed") if getattr(args, name) is not None}
    shared = SETTINGS | (QUICK if args.quick else {}) | given
    runs = [TrainSettings(**shared, walk=walk, out=str(out / name)) for name, walk in WALKS.items()]
    steps = runs[0].steps
    # a curve of twelve points; a checkpoint and a text now and then
    quarter = -(-steps // 4)
    due = {"eval_every": -(-steps // 12), "save_every": quarter, "sample_every": quarter, "sample_prompt": args.prompt}
    return [replace(settings, **due) for settings in runs]


def _check_folder(out: Path, runs: list[TrainSettings], *, overwrite: bool) -> None:
    """Raise a ``FoveateError`` if the folder holds something else than this demo, or part of it."""
    from foveate.report.files import check_folder
    from foveate.train.folder import holds_run
    from foveate.train.settings import flag_name, settings_of

    check_folder(out)
    there = [settings for settings in runs if holds_run(Path(settings.out))]
    content = sorted(path.name for path in out.iterdir() if path.name not in WALKS)
    if content and not there:
        raise FoveateError(f"--out: {out} is not empty and holds no demo ({content[0]}); choose another")
    for settings in there if not overwrite else []:
        kept = settings_of(settings.out)
        for name in (*SETTINGS, "walk"):
            if getattr(kept, name) != getattr(settings, name):
                raise FoveateError(
                    f"--out: {settings.out} was trained with {flag_name(name)} {getattr(kept, name)}, not "
                    f"{getattr(settings, name)}; choose another folder, or train again with --overwrite"
                )


def _train(screen: Screen, settings: TrainSettings, *, overwrite: bool) -> int:
    """Train, or go on where an earlier demo stopped; returns the exit code of a run that was told to stop."""
    from foveate.loading.manifest import find_damage
    from foveate.train.folder import holds_run
    from foveate.train.run import resume, train

    run = Path(settings.out)
    if not overwrite and holds_run(run) and find_damage(run) is None:
        screen.say(f"it is trained already, in {run} (to train it again: --overwrite)")
        return 0
    if not overwrite and holds_run(run):
        result = resume(run)
    else:
        result = train(settings, overwrite=overwrite)
    if result.finished:
        seconds, bpb = result.train["elapsed"], result.valid["bpb"]
        screen.say(f"{result.parameters:,} parameters, trained in {seconds:.0f} s to {bpb:.4f} bits per byte")
    return result.exit_code


def _command(args: argparse.Namespace) -> str:
    """The command line that makes this demo."""
    words = ["foveate", "demo", "--out", args.out]
    for name in ("tokens", "hidden", "seed"):
        if getattr(args, name) is not None:
            words += [f"--{name}", str(getattr(args, name))]
    if args.prompt != PROMPT:
        words += ["--prompt", args.prompt]
    return shlex.join([*words, "--quick"] if args.quick else words)
