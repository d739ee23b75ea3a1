"""``foveate serve``: a model behind the OpenAI interface."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from foveate.values import length

HELP = "answer completions and chats over HTTP, as OpenAI's servers do"
EXAMPLES = """examples:
  foveate serve runs/mine
  foveate serve runs/mine --port 9000 --name mine

and in Python
  client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
  client.completions.create(model="mine", prompt="It was a dark", max_tokens=50)

There is no login: whoever reaches the address may use the model. By default that is this machine alone."""

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
    parser.add_argument("--dtype", default="fp32", metavar="T", help="fp32, bf16, or int8 on a CPU (default: fp32)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")


def run(args: argparse.Namespace) -> None:
    from foveate import serve
    from foveate.loading.decoding import load_for_decoding
    from foveate.scoring import position_limit

    model, tokenizer = load_for_decoding(args.model, device=args.device, dtype=args.dtype)
    name = args.name or Path(args.model).resolve().name
    context = args.context or position_limit(model) or ANY_LENGTH
    bound = serve.listen(args.host, args.port)
    host, port = bound.getsockname()[:2]
    print(f"{name} at http://{f'[{host}]' if ':' in host else host}:{port}/v1 (stop with Ctrl-C)", file=sys.stderr)
    if args.host not in LOOPBACK:
        print(f"note: {args.host} may be reached from other machines, and asks nobody who they are", file=sys.stderr)
    sys.stderr.flush()
    serve.run(serve.build_app(model, tokenizer, name=name, context=context), bound)
