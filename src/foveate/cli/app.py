"""``foveate app``: a page of this machine where a person watches models look back."""

from __future__ import annotations

import argparse
import sys

HELP = "a local page: watch a model look back, be surprised, write and train"
EXAMPLES = """examples:
  foveate app demo                          the runs of `foveate demo`
  foveate app runs/plain runs/hourglass path/to/any/causal-lm
  foveate app runs/mine --port 9000
  foveate app path/to/llama --dtype bf16    less than half the time where the processor multiplies in it

Open the address that it prints. The page is this machine's alone unless --host says otherwise; nothing on it comes from
other hosts. A model is loaded when it is first looked at. Ctrl-C ends it."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="*",
        default=["demo"],
        metavar="MODEL",
        help="runs, any Hugging Face causal language models', .gguf files, or folders that hold some (default: demo)",
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="0 for any free one (default: 7860)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--dtype", default="fp32", metavar="T", help="fp32 or bf16 (default: fp32)")


def run(args: argparse.Namespace) -> None:
    from foveate import serve
    from foveate.devices import pick_device, read_dtype
    from foveate.pages.server import build_pages
    from foveate.pages.shelf import Shelf

    pick_device(args.device)
    read_dtype(args.dtype)
    shelf = Shelf(args.models, device=args.device, dtype=args.dtype)
    bound = serve.listen(args.host, args.port)
    alone = args.host in LOOPBACK
    app = build_pages(shelf, hosts=LOOPBACK if alone else ())
    host, port = bound.getsockname()[:2]

    def announce() -> None:
        print(f"{', '.join(shelf.paths)}", file=sys.stderr)
        print(f"http://{f'[{host}]' if ':' in host else host}:{port}/ (stop with Ctrl-C)", file=sys.stderr)
        if not alone:
            print(
                f"note: {args.host} may be reached from other machines, and asks nobody who they are", file=sys.stderr
            )
        sys.stderr.flush()

    serve.run(app, app.state.worker, bound, announce)
