"""``foveate sample``: let a model write."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

from foveate.errors import FoveateError
from foveate.progress import token_progress
from foveate.values import count, seed

HELP = "continue a prompt, shown as it is decoded"
EXAMPLES = """examples:
  foveate sample runs/mine --prompt "It was a dark night"
  foveate sample runs/mine --prompt "It was a dark night" --temperature 0.8 --top-p 0.95 --seed 7 --tokens 400
  foveate sample runs/mine --prompt-file beginning.txt --greedy
  foveate sample runs/retina --prompt-file a-whole-library.txt"""

LONG_PROMPT_TOKENS = 20_000  # from here on reading takes long enough to be shown
PROMPT_SHOWN = 4_000  # characters of the prompt printed before what follows it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN", help="a run directory, or any Hugging Face causal language model's")
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", metavar="TEXT", help="the text to continue, which begins a document; may be empty")
    prompt.add_argument("--prompt-file", metavar="FILE", help="a file that holds it; - for standard input")
    parser.add_argument(
        "--special-tokens",
        action="store_true",
        help="control tokens that the prompt spells out, such as <|endoftext|>, are tokens (default: text)",
    )
    parser.add_argument("--tokens", type=count, metavar="N", help="new tokens at most (default: 200)")
    parser.add_argument("--greedy", action="store_true", help="always the likeliest token")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="X", help="below 1 safer (default: 1)")
    parser.add_argument("--top-k", type=int, metavar="N", help="draw from the N likeliest tokens only")
    parser.add_argument("--top-p", type=float, metavar="X", help="draw from the likeliest that make up X of 1")
    parser.add_argument(
        "--seed", type=seed, metavar="N", help="the same seed, the same text (default: another each time)"
    )
    parser.add_argument("--dtype", default="fp32", metavar="T", help="fp32, bf16, or int8 on a CPU (default: fp32)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, when it is done")


def run(args: argparse.Namespace) -> None:
    prompt = args.prompt if args.prompt_file is None else _read(args.prompt_file)

    from foveate.loading.decoding import load_for_decoding
    from foveate.train.sample import sample

    model, tokenizer = load_for_decoding(args.model, device=args.device, dtype=args.dtype)
    screen = _Screen(prompt)
    reading = _Reading()
    try:
        result = sample(
            model,
            tokenizer,
            prompt,
            tokens=args.tokens,
            greedy=args.greedy,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            seed=args.seed,
            special_tokens=args.special_tokens,
            on_text=_ignore if args.json else screen.show,
            on_read=reading.advance,
        )
    finally:
        reading.close()
        screen.end_line()
    if args.json:
        values = dataclasses.asdict(result) | {"tokens_per_s": round(result.tokens_per_s, 1)}
        print(json.dumps({"prompt": prompt, **values}))
    elif not screen.started:  # the model ended the text at once
        print(screen.prompt)
    print(f"{result.tokens} tokens, {result.tokens_per_s:.1f} tokens/s", file=sys.stderr)


class _Reading:
    """Shows how far a long prompt has been read."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()
        self.bar: Callable[[int], None] | None = None
        self.read = 0

    def advance(self, tokens: int, total: int) -> None:
        if total < LONG_PROMPT_TOKENS:
            return
        if self.bar is None:
            self.bar = self.stack.enter_context(token_progress("reading", total))
        self.bar(tokens)
        self.read += tokens
        if self.read >= total - 1:  # the last one is read as the first new one is made
            self.close()

    def close(self) -> None:
        self.stack.close()


class _Screen:
    """Shows the prompt, or the end of a long one, and what follows it, once it has proved acceptable."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt if len(prompt) <= PROMPT_SHOWN else "…" + prompt[-PROMPT_SHOWN:]
        self.started = False

    def show(self, piece: str) -> None:
        print(piece if self.started else self.prompt + piece, end="", flush=True)
        self.started = True

    def end_line(self) -> None:
        if self.started:
            print(flush=True)


def _ignore(piece: str) -> None:
    pass


def _read(name: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode()
    except OSError as error:
        raise FoveateError(f"--prompt-file: cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FoveateError(f"--prompt-file: {name} is not UTF-8 text") from None
