"""Ten needles in one text, read once, then ten questions side by side: quick enough for a CPU.

    python experiments/zoom/together.py MODEL --data books.jsonl.xz --settings '{"opened": 29, "spread": 1}'

The whole text and the questions are read by zoom, every smallest group scored, or by full attention without --settings.
An answer counts if every digit is the model's first choice.
"""

from __future__ import annotations

import argparse
import json
import random
from contextlib import nullcontext

import torch
from perplexity import passages
from transformers import DynamicCache

import foveate
from foveate.hf.zoom_cache import cache_of

CITIES = "Paris London Berlin Madrid Vienna Cairo Lima Oslo Dublin Rome".split()  # noqa: SIM905


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--books", type=int, default=3)
    parser.add_argument("--settings", type=json.loads, help="of foveate.zoom, as JSON")
    args = parser.parse_args()
    model, tokenizer = foveate.load(args.model)

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    marks = ""
    for seed, book in enumerate(passages(args.data, tokenizer, args.context, args.books)):
        rng, ids = random.Random(seed), book[0].tolist()
        cities = rng.sample(CITIES, 10)
        numbers = ["".join(rng.choice("0123456789") for _ in range(5)) for _ in cities]
        facts = [encode(f"\nThe secret number of {c} is {n}.\n") for c, n in zip(cities, numbers, strict=True)]
        room = args.context - 60 - sum(map(len, facts))
        text, done = [], 0
        for i, fact in enumerate(facts):
            at = int((2 * i + 1) / 20 * room)
            text += ids[done:at] + fact
            done = at
        text += ids[done:room]
        asked = [f"\nQuestion: What is the secret number of {c}?\nAnswer: The secret number of {c} is" for c in cities]
        both = [encode(f"{question} {n}") for question, n in zip(asked, numbers, strict=True)]
        answers = [len(b) - len(encode(question)) for b, question in zip(both, asked, strict=True)]
        longest = max(map(len, both))
        rows = torch.tensor([encode("\n")[:1] * (longest - len(b)) + b for b in both])
        keep = {"keep": (None, None, None), "thumbnails": 4}
        with foveate.zoom(model, **(keep | args.settings)) if args.settings else nullcontext(model):
            cache = cache_of(model) if args.settings else DynamicCache(config=model.config)
            model.base_model(torch.tensor([text]), cache=cache)
            cache.batch_repeat_interleave(len(rows))
            hidden = model.base_model(rows, cache=cache).last_hidden_state
        for row, answer in enumerate(answers):
            best = model.lm_head(hidden[row, -answer - 1 : -1]).argmax(-1)
            marks += ".X"[bool((best == rows[row, -answer:]).all())]
        print(f"{args.settings or 'full'}: {marks.count('X')} of {len(marks)} {marks}", flush=True)


if __name__ == "__main__":
    main()
