"""``foveate ask``: questions about a long document."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from foveate.errors import FoveateError
from foveate.values import count

HELP = "ask a model about a document that is read once, far text coarsely"
EXAMPLES = """examples:
  foveate ask path/to/llama book.txt "Who came in?" "What did she say?"
  foveate ask path/to/llama book.txt --keep book.zoom            questions from standard input, one a line
  foveate ask path/to/llama book.txt "Who came in?" --keep book.zoom --opened 64

The model is any decoder of transformers with rotary positions; docs/zoom.md says what it reads of far text."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a folder, a .gguf file or a name on the hub")
    parser.add_argument("document", metavar="DOCUMENT", help="a file of UTF-8 text")
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help="by default each line of standard input")
    parser.add_argument("--keep", metavar="FILE", help="what was read: written if it is not there, else read instead")
    parser.add_argument("--tokens", type=count, default=100, metavar="N", help="of an answer at most (default: 100)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--plans", metavar="FILE", help="how each layer zooms, as foveate.hf.zoom_budget writes it")
    how.add_argument("--opened", type=count, metavar="N", help="groups of 4 far keys opened (default: 93)")
    parser.add_argument("--dtype", default="fp32", metavar="T", help="fp32 or bf16 (default: fp32)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--json", action="store_true", help="one JSON object per answer on standard output")


def run(args: argparse.Namespace) -> None:
    document = _read(args.document)

    from foveate.ask import ASKING, Reader
    from foveate.hf.zoom_budget import load_plans
    from foveate.loading import load
    from foveate.progress import token_progress

    plan = replace(ASKING, opened=args.opened) if args.opened else ASKING
    plans = load_plans(args.plans) if args.plans else None
    model, tokenizer = load(args.model, device=args.device, dtype=args.dtype)
    reader = Reader(model, tokenizer, document, plans or plan)
    kept = None if args.keep is None else Path(args.keep)
    if kept is not None and kept.exists():
        reader.load(kept)
    else:
        with token_progress("reading", len(reader.ids)) as advance:
            reader.read(advance)
        if kept is not None:
            reader.save(kept)
    print(f"{len(reader.ids):,} tokens in {reader.cache.nbytes / 1e6:.1f} MB", file=sys.stderr)
    for question in args.questions or _lines():
        if not args.json:
            print(f"\n{question}")
        text = ""
        for piece in reader.answer(question, args.tokens):
            text += piece
            if not args.json:
                print(piece if text != piece else piece.lstrip(), end="", flush=True)
        print(json.dumps({"question": question, "answer": text.strip()}) if args.json else "", flush=True)


def _lines() -> Iterator[str]:
    """Questions from standard input, as they come."""
    for line in sys.stdin:
        if line.strip():
            yield line.strip()


def _read(name: str) -> str:
    try:
        return Path(name).read_bytes().decode()
    except OSError as error:
        raise FoveateError(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FoveateError(f"{name} is not UTF-8 text") from None
