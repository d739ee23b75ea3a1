"""``foveate bench``: measured speed and memory, next to what was predicted."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.cli.shape import add_shape_arguments
from foveate.devices import DTYPES
from foveate.errors import FoveateError
from foveate.shape import config_values
from foveate.values import count, length

if TYPE_CHECKING:
    import torch

HELP = "measure speed and memory"
EXAMPLES = """examples:
  foveate bench decode --walk 14@1 --walk "6@1 8@4 12@16 0@1" --hidden 512 --context 512 --context 8k
  foveate bench decode --walk 12@1 --peer llama --peer llama-static --dtype fp32 --dtype bf16 --batch 1 --batch 16
  foveate bench decode --walk 12@1 --walk "2@1 8@4 2@1" --walk 12@1:fovea --context 1k --context 64k --plot growth
  foveate bench memory --walk 14@1 --walk "0@1 14@16 8@4 8@1" --hidden 512 --context 512
  foveate bench train --walk 12@1 --walk "2@1 8@4 2@1" --peer llama --hidden 512 --json
  foveate bench serve --walk "2@1 8@4 2@1" --hidden 512 --streams 16"""

TRAIN_DTYPES = ("fp32", "bf16", "float32", "bfloat16")
TABLE_WIDTH = 200  # where no terminal says how wide it is

Record = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True, parser_class=type(parser))
    decode = kinds.add_parser(
        "decode",
        help="milliseconds per generated token over contexts",
        description="Milliseconds per generated token, with random weights, the models timed in turn in one run, and "
        "the least that weights and state take to be read.",
        epilog=EXAMPLES,
    )
    _add_common(decode, context="1024", batch=1, dtype="fp32", dtypes=(*DTYPES, "int8", *DTYPES.values(), "int8"))
    decode.add_argument("--repeats", type=count, default=5, metavar="N", help="repeats in turn (default: 5)")
    decode.add_argument("--tokens", type=count, default=128, metavar="N", help="tokens per repeat (default: 128)")
    decode.add_argument("--generate", action="store_true", help="time model.generate instead of a bare loop")
    decode.add_argument(
        "--ragged", action="store_true", help="rows of different lengths, from half the first context to all of it"
    )
    decode.add_argument("--compile", action="store_true", help="compile the steps, with caches of declared length")
    decode.add_argument("--profile", action="store_true", help="also show where the time of a token goes (CPU)")
    _add_plot(decode)
    memory = kinds.add_parser(
        "memory",
        help="bytes of training and of the cache",
        description="Bytes saved for the backward pass, the peak of a process that trains, and bytes of the cache.",
        epilog=EXAMPLES,
    )
    _add_common(memory, context="512", batch=1, dtype="fp32", dtypes=TRAIN_DTYPES)
    memory.add_argument(
        "--no-peak", action="store_true", help="leave the peak out, which trains in a process of its own"
    )
    _add_plot(memory)
    train = kinds.add_parser(
        "train",
        help="training tokens per second",
        description="Training tokens per second, with random weights and tokens, a step of each model in turn.",
        epilog=EXAMPLES,
    )
    _add_common(train, context="512", batch=8, dtype="bf16", dtypes=TRAIN_DTYPES)
    train.add_argument("--compile", action="store_true", help="compile every model: minutes at first")
    train.add_argument("--repeats", type=count, default=5, metavar="N", help="steps of each (default: 5)")
    serve = kinds.add_parser(
        "serve",
        help="tokens per second of a server, to streams at once and one after another",
        description="Tokens per second that a server with random weights streams to clients of this machine: to all of "
        "them at once, and to one after another, in turn. Prompts are half to one and a half times --prompt long.",
        epilog=EXAMPLES,
    )
    _add_serve(serve)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    add_shape_arguments(parser, several=True)
    parser.add_argument("--streams", type=count, default=16, metavar="N", help="requests at once (default: 16)")
    parser.add_argument("--prompt", type=length, default=64, metavar="N", help="tokens of a prompt (default: 64)")
    parser.add_argument("--tokens", type=count, default=128, metavar="N", help="tokens of an answer (default: 128)")
    parser.add_argument("--repeats", type=count, default=3, metavar="N", help="repeats in turn (default: 3)")
    dtypes = (*DTYPES, "int8")
    parser.add_argument(
        "--dtype", choices=dtypes, action="append", metavar="T", help=f"{', '.join(dtypes)}, repeatable (default: fp32)"
    )
    _add_machine(parser)
    parser.set_defaults(
        context=None, default_context=0, batch=None, default_batch=1, default_dtype="fp32", against=None, peer=[]
    )


def _add_common(
    parser: argparse.ArgumentParser, *, context: str, batch: int, dtype: str, dtypes: Sequence[str]
) -> None:
    add_shape_arguments(parser, several=True)
    parser.add_argument(
        "--peer", action="append", default=[], metavar="P", help="another model in the first walk's shape, repeatable: "
        "llama, llama-static, x-transformers, hourglass-transformer, simple-hierarchical-transformer, megabyte, "
        "spacebyte-megabyte",
    )  # fmt: skip
    parser.add_argument("--peer-path", metavar="DIR", help="a checkout of kjslag/spacebyte, for spacebyte-megabyte")
    parser.add_argument(
        "--context", type=length, action="append", metavar="N", help=f"tokens, repeatable (default: {context})"
    )
    parser.add_argument(
        "--batch", type=count, action="append", metavar="N", help=f"rows, repeatable (default: {batch})"
    )
    parser.add_argument(
        "--dtype", choices=dtypes, action="append", metavar="T", help=f"{', '.join(dtypes[: len(dtypes) // 2])}, "
        f"repeatable (default: {dtype})",
    )  # fmt: skip
    parser.set_defaults(default_context=int(context), default_batch=batch, default_dtype=dtype)
    parser.add_argument("--against", metavar="NAME", help="the walk or peer that ratios are to (default: the first)")
    _add_machine(parser)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vocab", type=count, default=4096, metavar="N", help="rows of the embedding (default: 4096)")
    parser.add_argument("--threads", type=count, metavar="N", help="threads of the CPU (default: torch's choice)")
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu, cuda or mps (default: cpu)")
    parser.add_argument("--json", action="store_true", help="one JSON object per measurement on standard output")


def _add_plot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="DIR", help="draw growth over two contexts or more there, as SVG and PNG")


def run(args: argparse.Namespace) -> None:
    import torch

    from foveate.devices import pick_device

    if not args.walk:
        raise FoveateError("--walk is missing; write for example --walk '2@1 8@4 2@1' or --walk 6@1:fovea")
    if args.threads:
        torch.set_num_threads(args.threads)
    args.shapes = [config_values(argparse.Namespace(**{**vars(args), "walk": walk})) for walk in args.walk]
    args.device = pick_device(args.device)
    args.context = sorted(args.context or [args.default_context])
    args.batch = args.batch or [args.default_batch]
    args.dtype = [DTYPES.get(dtype, dtype) for dtype in args.dtype or [args.default_dtype]]
    args.against = _against(args)
    folder = None
    if getattr(args, "plot", None):
        from foveate.report.files import check_folder

        folder = Path(args.plot).expanduser()
        check_folder(folder)
    records = []
    for record in {"decode": _decode, "memory": _memory, "train": _train, "serve": _serve}[args.kind](args):
        records.append(record)
        if args.json:
            print(json.dumps(record), flush=True)
    if not records:
        raise FoveateError("nothing was measured: every model was left out, as said above")
    if not args.json:
        _print(args.kind, records)
    if folder is not None:
        _plot(args.kind, records, folder)


def _against(args: argparse.Namespace) -> str | None:
    """The name of the model that ratios are to, be it given as a preset."""
    if args.against is None:
        return None
    names = [shape["walk"] for shape in args.shapes]
    given = dict(zip(args.walk, names, strict=True)) | {name: name for name in [*names, *args.peer]}
    if args.against not in given:
        raise FoveateError(
            f"--against {args.against!r} is not measured; choose one of {', '.join([*names, *args.peer])}"
        )
    return given[args.against]


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _models(args: argparse.Namespace, dtype: torch.dtype, positions: int) -> dict[str, Any]:
    from foveate.bench.peers import make_models

    return make_models(
        args.shapes,
        args.peer,
        vocab_size=args.vocab,
        positions=positions,
        peer_path=_peer_path(args),
        device=args.device,
        dtype=dtype,
    )


def _peer_path(args: argparse.Namespace) -> Path | None:
    return Path(args.peer_path).expanduser().resolve() if args.peer_path else None


def _decode(args: argparse.Namespace) -> Iterator[Record]:
    import torch

    from foveate.bench.decode import time_decoding
    from foveate.bench.peers import ready_to_decode

    for dtype in args.dtype:
        rounded = dtype == "int8"  # our weights; peers stay in bf16
        positions = max(args.context) + args.tokens + 1
        models = _models(args, torch.bfloat16 if rounded else getattr(torch, dtype), positions)
        ready_to_decode(models, "int8" if rounded else None)
        for batch in args.batch:
            for result in time_decoding(
                models,
                context=args.context,
                batch=batch,
                tokens=args.tokens,
                repeats=args.repeats,
                through_generate=args.generate,
                ragged=args.ragged,
                roofline=True,
                profile=args.profile,
                compiled=args.compile,
                against=args.against,
                note=_note,
            ):
                yield result.to_json()


def _memory(args: argparse.Namespace) -> Iterator[Record]:
    import torch

    from foveate.bench.footprint import measure_footprints
    from foveate.bench.resident import peak_bytes

    requests = {shape["walk"]: {"shape": shape, "peer": None} for shape in args.shapes}
    requests |= {name: {"shape": args.shapes[0], "peer": name} for name in args.peer}
    path = _peer_path(args)
    for context in args.context:
        models = _models(args, torch.float32, context)
        for batch in args.batch:
            for dtype in args.dtype:
                common = {
                    "vocab_size": args.vocab,
                    "positions": context,
                    "peer_path": None if path is None else str(path),
                    "device": str(args.device),
                    "batch": batch,
                    "context": context,
                    "bf16": dtype != "float32",
                    "threads": torch.get_num_threads(),
                }

                def peak(name: str, common: Record = common) -> int | None:
                    return None if args.no_peak else peak_bytes({**requests[name], **common})

                for result in measure_footprints(
                    models,
                    context=context,
                    batch=batch,
                    dtype=getattr(torch, dtype),
                    peak=peak,
                    against=args.against,
                    note=_note,
                ):
                    yield result.to_json()


def _train(args: argparse.Namespace) -> Iterator[Record]:
    import torch

    from foveate.bench.train import time_training

    models = _models(args, torch.float32, max(args.context))
    for context in args.context:
        for batch in args.batch:
            for dtype in args.dtype:
                for result in time_training(
                    models,
                    context=context,
                    batch=batch,
                    steps=args.repeats,
                    bf16=dtype == "bfloat16",
                    peak=True,
                    compiled=args.compile,
                    against=args.against,
                    note=_note,
                ):
                    yield result.to_json()


def _serve(args: argparse.Namespace) -> Iterator[Record]:
    import torch

    from foveate.bench.peers import make_models, ready_to_decode
    from foveate.bench.serving import time_serving

    for dtype in args.dtype:
        rounded = dtype == "int8"
        models = make_models(
            args.shapes,
            [],
            vocab_size=args.vocab,
            positions=4 * (args.prompt + args.tokens),
            device=args.device,
            dtype=torch.bfloat16 if rounded else getattr(torch, dtype),
        )
        ready_to_decode(models, "int8" if rounded else None)
        sizes = {"streams": args.streams, "prompt": args.prompt, "tokens": args.tokens, "repeats": args.repeats}
        for result in time_serving(models, **sizes):
            yield result.to_json()


def _print(kind: str, records: list[Record]) -> None:
    from rich.console import Console

    from foveate.report.bench_tables import decode_table, memory_table, profile_table, serve_table, train_table

    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    tables = {"decode": decode_table, "memory": memory_table, "train": train_table, "serve": serve_table}
    console.print(tables[kind](records))
    for record in records:
        if record.get("profile"):
            console.print(profile_table(record))


def _plot(kind: str, records: list[Record], folder: Path) -> None:
    from foveate.files import write_atomically
    from foveate.report.growth_plots import growth_plots

    drawn = list(growth_plots(kind, records))
    if not drawn:
        _note("--plot: nothing to draw; measure at two contexts or more")
    for plot in drawn:
        write_atomically(folder / f"{plot.name}.svg", plot.svg)
        write_atomically(folder / f"{plot.name}.png", plot.png)
        _note(f"plot: {folder / plot.name}.svg and .png")
