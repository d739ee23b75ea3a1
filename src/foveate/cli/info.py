"""``foveate info``: what a model is and what it will cost, before anything is built."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.cli.shape import add_shape_arguments
from foveate.cost import DTYPE_BYTES, Cost, Load, Part, predict
from foveate.devices import DTYPES
from foveate.errors import FoveateError
from foveate.loading import model_folder
from foveate.report.units import data_size, quantity
from foveate.roofline import DEVICES, as_sentences, estimate
from foveate.shape import config_values, spec_from_config
from foveate.spec import KINDS, Full, HierarchySpec, Run
from foveate.values import count, length

if TYPE_CHECKING:
    from rich.console import Console

HELP = "show what a model costs: parameters, FLOPs, memory, cache"
EXAMPLES = """examples:
  foveate info --walk "2@1 8@4 2@1"
  foveate info --walk hourglass:24 --hidden 512 --context 64k
  foveate info --walk "0@1 14@16 8@4 8@1" --levels 16:width=768,heads=12 --dtype bfloat16 --json
  foveate info --walk deep:30 --hidden 4096 --context 32k --dtype bf16 --device h100 --devices 64
  foveate info runs/demo"""

DEFAULT_VOCAB = 4096
DEFAULT_CONTEXT = 1024
PICTURE_WIDTH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="a run's directory, read instead of the model flags")
    add_shape_arguments(parser)
    load = parser.add_argument_group("load")
    load.add_argument(
        "--vocab", type=count, metavar="N", help=f"rows of the embedding (default: the run's, or {DEFAULT_VOCAB})"
    )
    load.add_argument(
        "--context", type=length, metavar="N", help=f"tokens per sequence (default: the run's, or {DEFAULT_CONTEXT})"
    )
    load.add_argument("--batch", type=count, default=1, metavar="N", help="sequences at once (default: 1)")
    load.add_argument(
        "--dtype",
        choices=(*DTYPE_BYTES, *DTYPES),
        default="float32",
        help="of weights and cache; a 16-bit one means training under autocast (default: float32)",
    )
    load.add_argument(
        "--device", choices=tuple(DEVICES), help="estimate tokens per second there, in training and decoding"
    )
    load.add_argument("--devices", type=count, metavar="N", help="how many of them train (default: 1)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(args: argparse.Namespace) -> None:
    if args.run and args.walk:
        raise FoveateError(f"give a run ({args.run}) or --walk, not both; see foveate info --help")
    if args.run:
        config = read_config(Path(args.run))
        name, spec = args.run, spec_from_config(config)
    else:
        config = {}
        name, spec = None, spec_from_config(config_values(args))
    load = Load(
        context=args.context or config.get("max_position_embeddings") or DEFAULT_CONTEXT,
        vocab_size=args.vocab or config.get("vocab_size") or DEFAULT_VOCAB,
        batch=args.batch,
        dtype=DTYPES.get(args.dtype, args.dtype),
        tied=config.get("tie_word_embeddings", True),
    )
    if args.devices and not args.device:
        raise FoveateError(f"--devices {args.devices} says how many of --device there are; give that too")
    cost = predict(spec, load)
    speed = estimate(cost, DEVICES[args.device], devices=args.devices or 1) if args.device else None
    if args.json:
        added = {"estimate": asdict(speed)} if speed else {}
        print(json.dumps(({"run": name} if name else {}) | cost.to_json() | added))
        return
    show(spec, cost)
    if speed:
        print(as_sentences(speed, data_size))


def read_config(run: Path) -> Mapping[str, Any]:
    """The ``config.json`` of a run, or of the newest whole checkpoint of an unfinished one.

    Raises:
        FoveateError: it is missing, damaged, or of another kind of model.
    """
    path = model_folder(run) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FoveateError(f"{path} is damaged: {error}; copy it again, or from one of the run's checkpoints") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "foveate":
        raise FoveateError(f"{path} is not of a Foveate model: its model_type is {kind!r}")
    return config


def show(spec: HierarchySpec, cost: Cost) -> None:
    """Print the walk as a picture, a table of costs per level, and what they add up to."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 100)
    utf8 = (console.encoding or "").lower().startswith("utf")
    console.print(f"walk {cost.walk}\n", markup=False, soft_wrap=True)
    for line in picture(spec, utf8=utf8):
        console.print(line, markup=False)
    console.print()
    _print_table(console, spec, cost)
    load, total = cost.load, cost.total
    of = f"{load.batch} x {load.context:,} tokens"
    states = data_size(cost.training_bytes - total.backward_bytes)
    console.print(
        f"Depth: {cost.layers} layers, {cost.layer_runs_per_token:.4g} of them run per token.\n"
        f"Training on {of}: {data_size(cost.training_bytes)} = "
        f"weights, gradients and Adam {states} + kept for backward {data_size(total.backward_bytes)}.\n"
        f"Decoding after {of}: {data_size(cost.weight_bytes + total.cache_bytes)} = "
        f"weights {data_size(cost.weight_bytes)} + cache {data_size(total.cache_bytes)} ({load.dtype}).",
        markup=False,
        soft_wrap=True,
    )


def _print_table(console: Console, spec: HierarchySpec, cost: Cost) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("level")
    heads = ("layers", "width", "runs per\ntoken", "params", "FLOPs/tok\ndecoding", "FLOPs/tok\ntraining")
    for head in (*heads, "kept for\nbackward", "cache"):
        table.add_column(head, justify="right", no_wrap=True)
    for level in cost.levels:
        often = "1" if level.level.stride == 1 else f"1/{level.level.stride}"
        table.add_row(f"{level.level.stride}x", str(level.layers), str(level.level.width), often, *_cells(level.part))
    table.add_row("vocab", "", str(spec.level(1).width), "1", *_cells(cost.ends), end_section=True)
    table.add_row("total", str(cost.layers), "", f"{cost.layer_runs_per_token:.4g}", *_cells(cost.total), style="bold")
    console.print(table)


def _cells(part: Part) -> tuple[str, ...]:
    return (
        quantity(part.params),
        quantity(part.flops_per_token),
        quantity(part.train_flops_per_token),
        data_size(part.backward_bytes),
        data_size(part.cache_bytes),
    )


def picture(spec: HierarchySpec, *, utf8: bool = True) -> list[str]:
    """The walk drawn over depth, one line per level, finest on top: a filled cell is a layer that runs there."""
    layers = [run for run in spec.runs for _ in range(run.layers)]
    per_cell = -(-len(layers) // PICTURE_WIDTH)
    cell = max(1, min(3, PICTURE_WIDTH // len(layers)))
    name = max(len(f"{stride}x") for stride in spec.strides)
    lines = []
    for stride in spec.strides:
        cells = "".join(
            _shade(layer, utf8) * cell if layer.stride == stride else " " * cell for layer in layers[::per_cell]
        )
        lines.append(f"{stride}x".rjust(name) + " " + cells.rstrip())
    kinds = [kind for kind in KINDS if any(isinstance(run.attention, kind) for run in layers)]
    if kinds != [Full]:
        used = [f"{kind.marks[not utf8]} {kind.name}" for kind in kinds]
        lines.append(" " * (name + 1) + "attention: " + ", ".join(used))
    if per_cell > 1:
        lines.append(" " * (name + 1) + f"a cell is {per_cell} layers")
    return lines


def _shade(run: Run, utf8: bool) -> str:
    return run.attention.marks[not utf8]
