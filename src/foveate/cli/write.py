"""``foveate write``: text drawn from a model, as data to train another on."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from foveate.progress import token_progress
from foveate.values import count, seed

HELP = "draw documents from a model, into a .jsonl file to train on"
EXAMPLES = """examples:
  foveate write runs/teacher --out samples.jsonl --tokens 1M
  foveate write runs/teacher --out samples.jsonl --tokens 2M                  go on with the same file
  foveate write runs/teacher --out more.jsonl --tokens 1M --seed 1 --temperature 0.8
  foveate train --teacher runs/teacher --data samples.jsonl --walk "2@1 4@4 2@1" --out runs/student"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN", help="a run directory, or any Hugging Face causal language model's")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="the .jsonl file; one that is there is gone on with"
    )
    parser.add_argument("--tokens", type=count, default=1_000_000, metavar="N", help="tokens in all (default: 1M)")
    parser.add_argument("--length", type=count, default=511, metavar="N", help="of a document at most (default: 511)")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="X", help="below 1 safer (default: 1)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="another seed, another text (default: 0)")
    parser.add_argument("--batch", type=count, default=32, metavar="N", help="documents at once (default: 32)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, when it is done")


def run(args: argparse.Namespace) -> None:
    from foveate.loading import load
    from foveate.train.write import write_documents

    model, tokenizer = load(args.model, device=args.device)
    with token_progress("writing", args.tokens, show=sys.stderr.isatty()) as advance:
        tokens = write_documents(
            model,
            tokenizer,
            args.out,
            name=Path(args.model).name,
            tokens=args.tokens,
            length=args.length,
            batch=args.batch,
            temperature=args.temperature,
            seed=args.seed,
            on_tokens=advance,
        )
    documents = Path(args.out).read_bytes().count(b"\n")
    if args.json:
        print(json.dumps({"out": args.out, "documents": documents, "tokens": tokens, "seed": args.seed}))
    else:
        print(f"{args.out}: {documents:,} documents, {tokens:,} tokens")
