"""``foveate export``: a run as a folder that others can load."""

from __future__ import annotations

import argparse

HELP = "write a model to publish: weights, tokenizer, model card"
EXAMPLES = """examples:
  foveate export runs/mine --out my-model
  foveate export runs/mine --out my-model --dtype bf16

Whoever has foveate installed loads it with
  AutoModelForCausalLM.from_pretrained("my-model", trust_remote_code=True)
and after "import foveate" without trust_remote_code."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN", help="a run directory, or one of its checkpoints")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--dtype", default="auto", metavar="T", help="of the weights: auto, fp32, bf16 (default: auto)")


def run(args: argparse.Namespace) -> None:
    from foveate.export import export

    print(export(args.model, args.out, dtype=args.dtype))
