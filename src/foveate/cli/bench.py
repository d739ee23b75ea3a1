"""``foveate bench``: measured speed and memory, next to what was predicted."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from foveate.cli.shape import add_shape_arguments
from foveate.errors import FoveateError
from foveate.shape import config_values
from foveate.values import count, length

if TYPE_CHECKING:
    from foveate.bench.decode import DecodeTime

HELP = "measure speed and memory"
EXAMPLES = """examples:
  foveate bench decode --walk "2@1 8@4 2@1" --walk 12@1 --hidden 512
  foveate bench decode --walk 12@1 --peer llama --generate --hidden 512 --context 512
  foveate bench train --walk 12@1 --walk "2@1 8@4 2@1" --peer llama --hidden 512
  foveate bench decode --walk 6@1:fovea --hidden 256 --context 1k --context 64k --context 1M --json"""

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True, parser_class=type(parser))
    decode = kinds.add_parser(
        "decode",
        help="milliseconds per generated token over contexts",
        description="Milliseconds per generated token, with random weights, the walks timed in turn in one run.",
        epilog=EXAMPLES,
    )
    _add_common(decode)
    decode.add_argument(
        "--context", type=length, action="append", metavar="N", help="tokens read before, repeatable (default: 1024)"
    )
    decode.add_argument(
        "--batch", type=count, action="append", metavar="N", help="rows at once, repeatable (default: 1)"
    )
    decode.add_argument("--dtype", choices=(*DTYPES, *DTYPES.values()), default="fp32", help="default: fp32")
    decode.add_argument("--tokens", type=count, default=128, metavar="N", help="tokens per repeat (default: 128)")
    decode.add_argument("--generate", action="store_true", help="time model.generate instead of a bare loop")
    train = kinds.add_parser(
        "train",
        help="training tokens per second",
        description="Training tokens per second, with random weights and tokens, a step of each walk in turn.",
        epilog=EXAMPLES,
    )
    _add_common(train)
    train.add_argument("--context", type=length, default=512, metavar="N", help="tokens of a sequence (default: 512)")
    train.add_argument("--batch", type=count, default=8, metavar="N", help="sequences of a step (default: 8)")
    train.add_argument(
        "--dtype", choices=("fp32", "bf16", "float32", "bfloat16"), default="bf16", help="of autocast (default: bf16)"
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_shape_arguments(parser, several=True)
    parser.add_argument(
        "--peer", action="append", default=[], metavar="P", help="another model, in the first walk's shape: llama"
    )
    parser.add_argument("--vocab", type=count, default=4096, metavar="N", help="rows of the embedding (default: 4096)")
    parser.add_argument("--repeats", type=count, default=5, metavar="N", help="repeats in turn (default: 5)")
    parser.add_argument("--threads", type=count, metavar="N", help="threads of the CPU (default: torch's choice)")
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu, cuda or mps (default: cpu)")
    parser.add_argument("--json", action="store_true", help="one JSON object per measurement on standard output")


def run(args: argparse.Namespace) -> None:
    import torch

    from foveate.bench.peers import make_models
    from foveate.loading import pick_device

    if not args.walk:
        raise FoveateError("--walk is missing; write for example --walk '2@1 8@4 2@1' or --walk 6@1:fovea")
    if args.threads:
        torch.set_num_threads(args.threads)
    shapes = [config_values(argparse.Namespace(**{**vars(args), "walk": walk})) for walk in args.walk]
    dtype = DTYPES.get(args.dtype, args.dtype)
    weights = torch.float32 if args.kind == "train" else getattr(torch, dtype)
    models = make_models(shapes, args.peer, vocab_size=args.vocab, device=str(pick_device(args.device)), dtype=weights)
    {"decode": _decode, "train": _train}[args.kind](args, models, dtype)


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _decode(args: argparse.Namespace, models: dict[str, Any], dtype: str) -> None:
    from foveate.bench.decode import time_decoding

    shown = []
    for batch in args.batch or [1]:
        for result in time_decoding(
            models,
            context=args.context or [1024],
            batch=batch,
            tokens=args.tokens,
            repeats=args.repeats,
            through_generate=args.generate,
            note=_note,
        ):
            shown.append(result)
            if args.json:
                print(json.dumps(result.to_json()), flush=True)
    if not args.json:
        _print_decoding(shown)


def _train(args: argparse.Namespace, models: dict[str, Any], dtype: str) -> None:
    from foveate.bench.train import time_training

    results = time_training(
        models, context=args.context, batch=args.batch, steps=args.repeats, bf16=dtype == "bfloat16", note=_note
    )
    if args.json:
        for result in results:
            print(json.dumps(result.to_json()))
        return
    rows = [
        (
            r.walk or r.name,
            f"{r.params:,}",
            f"{r.train_tokens_per_s:,.0f}",
            f"{r.tokens_per_s_low:,.0f}–{r.tokens_per_s_high:,.0f}",
            f"{r.train_tokens_per_s / results[0].train_tokens_per_s:.2f}",
        )
        for r in results
    ]
    title = f"training, {dtype}, {args.batch} x {args.context} tokens, {results[0].threads} threads; median step"
    _print_table(title, ("walk", "parameters", "tokens/s", "low–high", "ratio"), rows)


def _print_decoding(results: list[DecodeTime]) -> None:
    first: dict[tuple[int, int], float] = {}
    rows = []
    for r in results:
        base = first.setdefault((r.context, r.batch), r.ms_per_token)
        rows.append(
            (
                r.walk or r.name,
                f"{r.context:,}",
                str(r.batch),
                f"{r.ms_per_token:.2f}",
                f"{r.ms_low:.2f}–{r.ms_high:.2f}",
                f"{r.ms_per_token / base:.2f}",
                f"{r.state_bytes / 2**20:.1f} MiB",
                "filled" if r.prefill_tokens_per_s is None else f"{r.prefill_tokens_per_s:,.0f}",
            )
        )
    title = f"decoding, {results[0].dtype}, {results[0].threads} threads; median of {results[0].repeats}"
    _print_table(title, ("walk", "context", "batch", "ms/token", "low–high", "ratio", "state", "read, tokens/s"), rows)


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column == "walk" else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
