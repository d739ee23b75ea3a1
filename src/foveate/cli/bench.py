"""``foveate bench``: measured speed and memory, next to what was predicted."""

from __future__ import annotations

import argparse
import json
import sys
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
    add_shape_arguments(decode, several=True)
    decode.add_argument("--vocab", type=count, default=4096, metavar="N", help="rows of the embedding (default: 4096)")
    decode.add_argument(
        "--context", type=length, action="append", metavar="N", help="tokens read before, repeatable (default: 1024)"
    )
    decode.add_argument("--batch", type=count, action="append", metavar="N", help="rows at once (default: 1)")
    decode.add_argument("--dtype", choices=(*DTYPES, *DTYPES.values()), default="fp32", help="default: fp32")
    decode.add_argument("--tokens", type=count, default=128, metavar="N", help="tokens per repeat (default: 128)")
    decode.add_argument("--repeats", type=count, default=5, metavar="N", help="repeats in turn (default: 5)")
    decode.add_argument("--threads", type=count, metavar="N", help="threads of the CPU (default: torch's choice)")
    decode.add_argument("--device", default="cpu", metavar="D", help="cpu, cuda or mps (default: cpu)")
    decode.add_argument(
        "--peer", action="append", metavar="P", help="another model of the first walk's shape, repeatable: llama"
    )
    decode.add_argument("--generate", action="store_true", help="time model.generate instead of a bare loop")
    decode.add_argument("--json", action="store_true", help="one JSON object per measurement on standard output")


def run(args: argparse.Namespace) -> None:
    import torch

    from foveate.bench.decode import time_walks

    if not args.walk:
        raise FoveateError("--walk is missing; write for example --walk '2@1 8@4 2@1' or --walk 6@1:fovea")
    if args.threads:
        torch.set_num_threads(args.threads)
    shapes = [config_values(argparse.Namespace(**{**vars(args), "walk": walk})) for walk in args.walk]
    results = time_walks(
        shapes,
        vocab_size=args.vocab,
        contexts=args.context or [1024],
        batches=args.batch or [1],
        dtype=getattr(torch, DTYPES.get(args.dtype, args.dtype)),
        device=args.device,
        tokens=args.tokens,
        repeats=args.repeats,
        peers=args.peer or [],
        through_generate=args.generate,
        note=lambda line: print(line, file=sys.stderr, flush=True),
    )
    shown = []
    for result in results:
        shown.append(result)
        if args.json:
            print(json.dumps(result.to_json()), flush=True)
    if not args.json:
        _print_table(shown)


def _print_table(results: list[DecodeTime]) -> None:
    from rich.console import Console
    from rich.table import Table

    first: dict[tuple[int, int], Any] = {}
    table = Table(title=f"decoding, {results[0].dtype}, {results[0].threads} threads; median of {results[0].repeats}")
    for column in ("walk", "context", "batch", "ms/token", "low–high", "ratio", "state", "read at tokens/s"):
        table.add_column(column, justify="left" if column == "walk" else "right")
    for r in results:
        base = first.setdefault((r.context, r.batch), r.ms_per_token)
        read = "filled" if r.prefill_tokens_per_s is None else f"{r.prefill_tokens_per_s:,.0f}"
        spread = f"{r.ms_low:.2f}–{r.ms_high:.2f}"
        table.add_row(
            r.walk or r.name, f"{r.context:,}", str(r.batch), f"{r.ms_per_token:.2f}", spread,
            f"{r.ms_per_token / base:.2f}", f"{r.state_bytes / 2**20:.1f} MiB", read,
        )  # fmt: skip
    Console().print(table)
