"""``foveate convert``: a pretrained model as a Foveate model."""

from __future__ import annotations

import argparse
import json

HELP = "bring a pretrained model in: Llama, Mistral, Qwen, Gemma …, from a folder, the hub or a .gguf file"
EXAMPLES = """examples:
  foveate convert path/to/llama --out models/llama
  foveate convert HuggingFaceTB/SmolLM2-135M --out models/smollm2
  foveate convert smollm2.gguf --walk "6@1 18@4 6@1" --out models/coarse
  foveate convert path/to/llama --walk 16@1:fovea --out models/fovea --report book.txt

Without --walk the result computes what the model computes. Any other walk takes as many layers as the model has, in
order, and is to be trained further: foveate train --from models/coarse --teacher path/to/llama"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="SRC", help="a folder, a name on the hub, or a .gguf file")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--walk", metavar="W", help="of as many layers (default: all on tokens, as the model has them)")
    parser.add_argument("--pooling", default="mean", metavar="P", help="mean, linear or attention (default: mean)")
    parser.add_argument(
        "--expanding", default="repeat", metavar="E", help="repeat, linear or attention (default: repeat)"
    )
    parser.add_argument("--dtype", default="fp32", metavar="T", help="of the weights: fp32, bf16, auto (default: fp32)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(args: argparse.Namespace) -> None:
    from foveate.converting.folder import convert_folder

    made = convert_folder(
        args.model, args.out, walk=args.walk, pooling=args.pooling, expanding=args.expanding, dtype=args.dtype
    )
    if args.json:
        print(json.dumps({"out": args.out, "walk": made.config.walk, "parameters": made.num_parameters()}))
    else:
        print(f"{args.out}: {made.config.walk}, {made.num_parameters():,} parameters")
