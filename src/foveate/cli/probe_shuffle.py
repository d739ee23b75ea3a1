"""``foveate probe shuffle``: how far back word order matters to a model."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.errors import FoveateError
from foveate.values import count, length, seed

if TYPE_CHECKING:
    from rich.table import Table

    from foveate.probes.curves import ShuffleResult, Summary

HELP = "how far back word order matters: scramble the context, watch the surprise"
EXAMPLES = """examples:
  foveate probe shuffle path/to/any/causal-lm --data book.txt more.jsonl
  foveate probe shuffle model.gguf --data held-out.jsonl --context 1k --unit token word sentence --out probes/gguf
  foveate probe shuffle runs/mine --data article.txt --split-at '^# ' --sweep --out probes/mine
  foveate probe shuffle runs/mine --data held-out.jsonl --suggest      a fovea for a retina of this tokenizer
  foveate probe shuffle runs/mine --data held-out.jsonl --json

Sequences of --context tokens; those before the boundary are treated, those after it scored, the same ones each time:
  shuffle   the tokens (or --unit) before the boundary in random order: the order is gone, the topic is there
  replace   another document's text before the boundary: the topic is gone as well
  truncate  nothing before the boundary
Differences from the original are paired, with 95% bootstrap intervals over sequences. The order horizon is how many
untouched tokens after the boundary it takes until the shuffle curve stays within --tolerance of the original, a share
of the curve's own mean at distances 1 to 8; the topic horizon is the same of replace. As a mean is noisy at every
distance, the curve is judged by the decreasing function nearest to it (isotonic regression); so is each resample."""

PLAIN_WIDTH = 120  # where there is no terminal to ask
BINS = (1, 9, 17, 33, 65, 129, 257, 513, 1025)  # distances at which the columns of the printed table begin


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a run, a causal language model's folder or name on the hub, or a .gguf file"
    )
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        required=True,
        metavar="PATH",
        help="files, folders, globs, hf:NAME, or books; best what the model has not seen",
    )
    parser.add_argument("--text-field", default="text", metavar="NAME", help="of .jsonl lines (default: text)")
    parser.add_argument(
        "--split-at",
        metavar="REGEX",
        help="cut every document before each match, ^ and $ meaning lines: '^ = [^=]+ = $' for WikiText's articles",
    )
    parser.add_argument("--context", type=length, default=512, metavar="N", help="tokens of a sequence (default: 512)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--boundary",
        type=length,
        nargs="+",
        default=[],
        metavar="N",
        help="tokens before the boundary, several for a sweep (default: half of the context)",
    )
    where.add_argument("--sweep", action="store_true", help="boundaries at every eighth of the context, for a map")
    parser.add_argument(
        "--conditions",
        nargs="+",
        default=["shuffle", "replace", "truncate"],
        metavar="C",
        help="which of shuffle, replace, truncate to compare with the original (default: all)",
    )
    parser.add_argument(
        "--unit",
        nargs="+",
        default=["token"],
        metavar="U",
        help="what a shuffle keeps whole: token, word, sentence, block:K; several for a curve each (default: token)",
    )
    parser.add_argument("--sequences", type=count, default=200, metavar="N", help="how many, at most (default: 200)")
    parser.add_argument(
        "--permutations",
        type=count,
        default=3,
        metavar="N",
        help="random orders, and other documents, for each sequence (default: 3)",
    )
    parser.add_argument(
        "--tolerance", type=float, default=0.05, metavar="X", help="share that counts as nothing (default: 0.05)"
    )
    parser.add_argument("--suggest", action="store_true", help="from the horizons, a fovea to train with")
    parser.add_argument("--batch", type=count, metavar="N", help="rows computed at once (default: by memory)")
    parser.add_argument(
        "--dtype", default="auto", metavar="T", help="fp32, bf16, or auto: bf16 where that is faster (default: auto)"
    )
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of sequences and permutations (default: 0)")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for results.jsonl, the figures, and the losses, so that an interrupted probe goes on",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per curve and summary on standard output")


def run(args: argparse.Namespace) -> None:
    from foveate.data.documents import read_documents
    from foveate.devices import pick_device, pick_dtype
    from foveate.loading import load
    from foveate.probes.plan import ShufflePlan
    from foveate.probes.sequences import split_at
    from foveate.probes.shuffle import probe_shuffle
    from foveate.report.files import check_folder

    eighths = tuple(args.context * eighth // 8 for eighth in range(1, 8)) if args.sweep else ()
    plan = ShufflePlan(
        context=args.context,
        boundaries=tuple(args.boundary) or eighths,
        conditions=tuple(args.conditions),
        units=tuple(args.unit),
        sequences=args.sequences,
        permutations=args.permutations,
        tolerance=args.tolerance,
        seed=args.seed,
    )
    texts = read_documents(args.data, text_field=args.text_field)
    if args.split_at:
        texts = split_at(texts, args.split_at)
    folder = Path(args.out) if args.out else None
    if folder is not None:
        check_folder(folder)
    dtype = pick_dtype(args.dtype, pick_device(args.device))
    model, tokenizer = load(args.model, device=args.device, dtype=dtype)
    result = probe_shuffle(model, tokenizer, texts, plan, batch=args.batch, folder=folder)
    if result.available < plan.sequences:
        print(f"the text gives {result.available} sequences of {plan.context:,} tokens, no more", file=sys.stderr)
    records = [{"model": args.model, "dtype": dtype, "seed": plan.seed, **record} for record in result.to_json()]
    suggestions = [_suggest(summary, model) for summary in result.summaries] if args.suggest else []
    if folder is not None:
        _write(folder, records)
    if args.json:
        for record in [*records, *suggestions]:
            print(json.dumps(record))
        return
    _print(result, suggestions)
    if folder is not None:
        print(f"figures and numbers: {folder}")


def _suggest(summary: Summary, model: Any) -> dict[str, Any]:
    from foveate.probes.suggest import suggest

    if summary.order is None:
        raise FoveateError("--suggest takes the order horizon, which comes from shuffle; leave --conditions out")
    spec = getattr(model.config, "spec", None)
    layers = spec.n_layers if spec is not None else getattr(model.config, "num_hidden_layers", None)
    found = suggest(summary.order, summary.topic, layers=layers or 12)
    return {
        "kind": "suggestion",
        "unit": summary.unit,
        "context": summary.context,
        "boundary": summary.boundary,
        "walk": found.walk,
        "exact": found.exact,
        "grouped": found.grouped,
    }


def _write(folder: Path, records: list[dict[str, Any]]) -> None:
    from foveate.files import write_atomically
    from foveate.report.probe_plots import shuffle_plots

    for plot in shuffle_plots(records):
        write_atomically(folder / f"{plot.name}.svg", plot.svg)
        write_atomically(folder / f"{plot.name}.png", plot.png)
    write_atomically(folder / "results.jsonl", "".join(json.dumps(record) + "\n" for record in records))


def _print(result: ShuffleResult, suggestions: list[dict[str, Any]]) -> None:
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    for boundary in result.plan.boundaries:
        console.print(_curve_table(result, boundary))
    console.print(_horizon_table(result))
    first = result.summaries[0]
    print(
        f"{first.sequences} sequences of {first.context:,} tokens from {first.documents} documents, "
        f"{first.permutations} permutations; in brackets 95% intervals; ≥: to the end of what was measured\n"
        f"order: how many tokens in order it takes until the order of those before them no longer matters\n"
        f"topic: how many it takes until it no longer matters what was before them\n"
        f"order share: what shuffling loses of all that the tokens before the boundary are worth"
    )
    for found in suggestions:
        print(f'\nfoveate train --walk "{found["walk"]}"')
        print(f"a fovea that sees at least {found['exact']} tokens singly, and groups up to {found['grouped']:,} back")


def _curve_table(result: ShuffleResult, boundary: int) -> Table:
    from rich import box
    from rich.table import Table

    D = result.plan.context - boundary
    starts = [start for start in BINS if start <= D]
    ends = [*(start - 1 for start in starts[1:]), D]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column(f"nats more, boundary {boundary:,}")
    for start, end in zip(starts, ends, strict=True):
        table.add_column(f"{start}–{end}", justify="right")
    for curve in result.curves:
        if curve.boundary == boundary and curve.condition != "original":
            means = [curve.delta.mean[start - 1 : end].mean() for start, end in zip(starts, ends, strict=True)]
            table.add_row(f"{curve.condition} {curve.unit or ''}", *(f"{mean:.3f}" for mean in means))
    table.add_section()
    return table


def _horizon_table(result: ShuffleResult) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for name in ("boundary", "unit", "order horizon", "topic horizon", "order share"):
        table.add_column(name, justify="right")
    for summary in result.summaries:
        share = summary.order_share
        table.add_row(
            f"{summary.boundary:,}",
            summary.unit or "",
            escape(str(summary.order or "")),
            escape(str(summary.topic or "")),
            "" if share is None else escape(f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]"),
        )
    return table
