"""``foveate convert``: a pretrained model as a Foveate model."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from foveate.values import count, length

HELP = "bring a pretrained model in: Llama, Mistral, Qwen, Gemma …, from a folder, the hub or a .gguf file"
EXAMPLES = """examples:
  foveate convert path/to/llama --out models/llama
  foveate convert HuggingFaceTB/SmolLM2-135M --out models/smollm2
  foveate convert smollm2.gguf --walk "6@1 18@4 6@1" --out models/coarse
  foveate convert path/to/llama --walk 16@1:fovea --out models/fovea --report book.txt

Without --walk the result computes what the model computes. Any other walk takes as many layers as the model has, in
order, and is to be trained further: foveate train --from models/coarse --teacher path/to/llama"""

CONTEXT = 512  # tokens of a window that is scored


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="SRC", help="a folder, a name on the hub, or a .gguf file")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--walk", metavar="W", help="of as many layers (default: all on tokens, as the model has them)")
    parser.add_argument("--pooling", default="mean", metavar="P", help="mean, linear or attention (default: mean)")
    parser.add_argument(
        "--expanding", default="repeat", metavar="E", help="repeat, linear or attention (default: repeat)"
    )
    parser.add_argument("--dtype", default="fp32", metavar="T", help="of the weights: fp32, bf16, auto (default: fp32)")
    parser.add_argument(
        "--context",
        type=length,
        metavar="N",
        help="fix what depends on the length of the text for N tokens",
    )
    parser.add_argument("--report", metavar="FILE", help="a text: how well it is predicted before and after")
    parser.add_argument("--report-tokens", type=count, default=20_000, metavar="N", help="of it at most (default: 20k)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(args: argparse.Namespace) -> None:
    from foveate.converting.folder import convert_folder

    documents = None if args.report is None else _read(args.report)  # what cannot be read is said before the work
    made = convert_folder(
        args.model,
        args.out,
        walk=args.walk,
        pooling=args.pooling,
        expanding=args.expanding,
        dtype=args.dtype,
        context=args.context,
    )
    values: dict[str, Any] = {"out": args.out, "walk": made.config.walk, "parameters": made.num_parameters()}
    if documents is not None:
        values |= {"before": _score(args.model, documents, args), "after": _score(args.out, documents, args)}
    if args.json:
        print(json.dumps(values))
        return
    print(f"{args.out}: {made.config.walk}, {made.num_parameters():,} parameters")
    for when in ("before", "after"):
        if when in values:
            score = values[when]
            print(f"{when}: {score['bpb']:.4f} bits per byte, {score['nll_per_token']:.4f} nats per token")


def _read(path: str) -> list[str]:
    from foveate.data.corpus import read_documents
    from foveate.data.reading import Reading

    return list(read_documents([path], reading=Reading()))


def _score(model: str, documents: list[str], args: argparse.Namespace) -> dict[str, Any]:
    from foveate.loading.decoding import load_for_decoding
    from foveate.train.evaluate import evaluate

    loaded, tokenizer = load_for_decoding(model, device="cpu")
    context = min(CONTEXT, loaded.config.max_position_embeddings)
    return asdict(evaluate(loaded, tokenizer, documents, context=context, max_tokens=args.report_tokens))
