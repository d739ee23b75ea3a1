"""``foveate serve``: a model behind the OpenAI interface."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from foveate.errors import FoveateError
from foveate.values import count, length

HELP = "answer completions and chats over HTTP, as OpenAI's servers do"
EXAMPLES = """examples:
  foveate serve runs/mine
  foveate serve runs/mine --port 9000 --name mine --batch 32
  foveate serve runs/mine --dtype bf16 --context 64k

and in Python
  client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
  client.completions.create(model="mine", prompt="It was a dark", max_tokens=50)

Open the address in a browser for every argument of a request. Requests that come together are written together, each
as it would be alone. Ctrl-C ends them at their next token. There is no login: whoever reaches the address may use the
model. By default that is this machine alone."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANY_LENGTH = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN", help="a run directory, or any Hugging Face causal language model's")
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="0 for any free one (default: 8000)")
    parser.add_argument("--name", metavar="NAME", help="what requests call the model (default: the folder's name)")
    parser.add_argument(
        "--context", type=length, metavar="N", help="longest text, prompt and answer (default: the model's positions)"
    )
    parser.add_argument(
        "--batch", type=count, default=16, metavar="N", help="answers written at once; the cache grows with them "
        "(default: 16; models that are not Foveate's write one after another)"
    )  # fmt: skip
    parser.add_argument(
        "--queue", type=count, default=128, metavar="N", help="prompts that may wait before more are "
        "refused (default: 128)"
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="S", help="seconds a request may take to come (default: 30)"
    )
    parser.add_argument(
        "--special-tokens", action="store_true", help="let control tokens that requests spell out be tokens, not text"
    )
    parser.add_argument("--dtype", default="fp32", metavar="T", help="fp32, bf16, or int8 on a CPU (default: fp32)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")


def run(args: argparse.Namespace) -> None:
    from foveate import serve
    from foveate.loading.decoding import load_for_decoding
    from foveate.scoring import position_limit

    if not 0 < args.timeout < float("inf"):
        raise FoveateError(f"--timeout: {args.timeout:g} must be above 0 seconds")
    bound = serve.listen(args.host, args.port)
    model, tokenizer = load_for_decoding(args.model, device=args.device, dtype=args.dtype)
    limit = position_limit(model)
    if limit is not None and args.context is not None and args.context > limit:
        raise FoveateError(f"--context: {args.context:,} is more than the model's {limit:,} positions")
    context = args.context or limit or ANY_LENGTH
    name = args.name or Path(args.model).resolve().name
    engine = serve.build_engine(model, tokenizer, context=context, batch=args.batch, queue=args.queue)
    alone = args.host in LOOPBACK
    app = serve.build_app(
        engine, name=name, hosts=LOOPBACK if alone else (), seconds=args.timeout, special_tokens=args.special_tokens
    )
    host, port = bound.getsockname()[:2]

    def announce() -> None:
        print(f"{name} at http://{f'[{host}]' if ':' in host else host}:{port}/v1 (stop with Ctrl-C)", file=sys.stderr)
        if not alone:
            print(
                f"note: {args.host} may be reached from other machines, and asks nobody who they are", file=sys.stderr
            )
        sys.stderr.flush()

    serve.run(app, engine, bound, announce)
