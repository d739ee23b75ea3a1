"""``foveate zoom``: what reading less of far text costs a model, and budgets by head that keep the loss small."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from foveate.data.reading import add_reading_arguments, reading_of
from foveate.errors import FoveateError
from foveate.values import count, length

if TYPE_CHECKING:
    from torch import Tensor

HELP = "measure what reading far text coarsely costs a model, and find budgets by head"
EXAMPLES = """examples:
  foveate zoom path/to/llama --data my-texts/ --context 2k --out plans.json
  foveate zoom path/to/llama --data book.txt --context 4k --within 0.5 --opened 16 32 64 128 --out plans.json
  foveate ask path/to/llama book.txt "Who came in?" --plans plans.json

Half of the passages calibrate, the loss is measured on the other half. The smallest budget within --within goes into
--out, for foveate ask --plans and load_plans of foveate.hf.zoom_budget. docs/zoom.md has the terms."""

OPENED = [8, 16, 32, 64, 128]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a folder, a .gguf file or a name on the hub")
    parser.add_argument("--data", nargs="+", required=True, metavar="TEXT", help="files, folders or globs of text")
    add_reading_arguments(parser)
    parser.add_argument("--context", type=length, default=2048, metavar="N", help="tokens of a passage (default: 2048)")
    parser.add_argument("--passages", type=count, default=8, metavar="N", help="2 or more (default: 8)")
    parser.add_argument(
        "--opened", type=count, nargs="+", default=OPENED, metavar="N", help="mean groups of 4 opened, to be tried"
    )
    parser.add_argument("--within", type=float, default=1.0, metavar="X", help="percent of perplexity (default: 1)")
    parser.add_argument("--out", metavar="FILE", help="where the plans go (default: nowhere)")
    parser.add_argument("--dtype", default="fp32", metavar="T", help="fp32 or bf16 (default: fp32)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--json", action="store_true", help="one JSON object per budget on standard output")


def run(args: argparse.Namespace) -> None:
    if args.passages < 2:
        raise FoveateError(f"--passages: {args.passages} must be at least 2: one to calibrate on, one to measure on")
    if not args.within > 0:
        raise FoveateError(f"--within: {args.within:g} must be above 0")

    from foveate.hf.zoom_budget import STEPS, save_plans, shortest_text
    from foveate.hf.zoom_curve import curve
    from foveate.loading import load
    from foveate.progress import token_progress
    from foveate.report.screen import new_table, screen
    from foveate.scoring import check_context
    from foveate.zooming import ZoomPlan

    plan = ZoomPlan(keep=(None, 48, 64), thumbnails=64)
    if args.context < shortest_text(plan):
        raise FoveateError(f"--context: {args.context} must be at least {shortest_text(plan)}, to have far text")
    if max(args.opened) > STEPS[-1]:
        raise FoveateError(f"--opened: {max(args.opened)} must be at most {STEPS[-1]}, the most that a head may open")
    model, tokenizer = load(args.model, device=args.device, dtype=args.dtype)
    check_context(model, args.context)
    texts = _passages(args, tokenizer)
    first, second = texts[::2], texts[1::2]
    budgets = sorted(set(args.opened))
    with token_progress("reading", args.context * (len(first) + len(second) * (1 + len(budgets)))) as advance:
        points = curve(model, first, second, plan, budgets, progress=advance)
    good = next((point for point in points if 100 * point.over_full <= args.within), None)
    table = new_table("groups opened", ("keys", "summaries", "perplexity over full"))
    for point in points:
        if args.json:
            names = ("opened", "keys", "summaries", "nats", "over_full")
            print(json.dumps({name: getattr(point, name) for name in names} | {"within": point is good}))
        mark = "  ←" if point is good else ""
        numbers = (f"{point.keys:,.0f}", f"{point.summaries:,.0f}", f"{100 * point.over_full:+.2f}%{mark}")
        table.add_row(str(point.opened), *numbers)
    if not args.json:
        screen().print(table)
    print(f"{len(first)} passages of {args.context:,} to calibrate, {len(second)} to measure", file=sys.stderr)
    if good is None:
        raise FoveateError(f"no budget keeps perplexity within {args.within:g}%; try more than --opened {budgets[-1]}")
    if args.out:
        save_plans(args.out, good.plans)
        print(f"plans that open {good.opened} groups in the mean: {args.out}", file=sys.stderr)


def _passages(args: argparse.Namespace, tokenizer: Any) -> list[Tensor]:
    """Passages spread over the texts, one from each document before a second of any."""
    import torch

    from foveate.data.documents import read_documents
    from foveate.data.prompt import encode_text

    rounds: list[list[Tensor]] = [[] for _ in range(args.passages)]
    for text in read_documents(args.data, reading=reading_of(args)):
        # a token is rarely more than 16 characters: the rest of a long text is not wanted
        ids = encode_text(tokenizer, text[: 16 * args.context * args.passages])
        for turn in range(min(args.passages, len(ids) // args.context)):
            rounds[turn].append(torch.tensor([ids[turn * args.context : (turn + 1) * args.context]]))
        if len(rounds[0]) == args.passages:
            break
    found = [passage for turn in rounds for passage in turn][: args.passages]
    if len(found) < 2:
        raise FoveateError(f"--data: {len(found)} passages of {args.context:,} tokens: give more text")
    return found
