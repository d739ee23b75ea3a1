"""Whether a fact far back is still found, with the question read after the text: zoom and its rivals.

    python experiments/zoom/needles.py MODEL --data books.jsonl.xz --context 4096 --trials 4 --out runs/needles.jsonl

A passage of a book holds facts at ten depths: one number of one city (``single``), four of four cities (``several``),
or a number told through another city (``chain``). The question comes last, and an answer counts if every digit is the
model's first choice. The whole text, question included, is read by the method. One JSON line per method, task and depth
is appended to --out; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from perplexity import passages
from rivals import read_methods, reading

from foveate import load

CITIES = "Paris London Berlin Madrid Vienna Cairo Lima Oslo Dublin Rome Delhi Tokyo Boston Havana Athens Lisbon".split()  # noqa: SIM905
DEPTHS = [(2 * i + 1) / 20 for i in range(10)]
TASKS = ("single", "several", "chain")
DIGITS = 5


def example(tokenizer: Any, ids: list[int], task: str, depth: float, seed: int) -> tuple[list[int], int]:
    """A text of as many tokens as ``ids`` that ends in the answer, and the answer's tokens."""
    rng = random.Random(f"{task} {depth} {seed}")
    cities = rng.sample(CITIES, 4)
    numbers = ["".join(rng.choice("0123456789") for _ in range(DIGITS)) for _ in cities]
    facts = [f"\nThe secret number of {c} is {n}.\n" for c, n in zip(cities, numbers, strict=True)]
    asked = cities[0]
    if task == "chain":
        facts = [facts[0], f"\nThe secret number of {cities[1]} is that of {cities[0]}.\n"]
        asked = cities[1]
    facts = facts[:1] if task == "single" else facts
    question = f"\nQuestion: What is the secret number of {asked}?\nAnswer: The secret number of {asked} is"
    tail = tokenizer(question, add_special_tokens=False)["input_ids"]
    both = tokenizer(f"{question} {numbers[0]}", add_special_tokens=False)["input_ids"]
    answer = len(both) - len(tail)
    planted = [tokenizer(fact, add_special_tokens=False)["input_ids"] for fact in facts]
    room = len(ids) - len(both) - sum(map(len, planted))
    depths = [depth] + [rng.random() for _ in facts[1:]]
    text, done = [], 0
    for place, fact in sorted(zip(depths, planted, strict=True)):
        at = int(place * room)
        text += ids[done:at] + fact
        done = at
    return text + ids[done:room] + both, answer


@torch.inference_mode()
def found(model: Any, texts: list[tuple[list[int], int]]) -> list[bool]:
    ids = torch.tensor([text for text, _ in texts], device=model.device)
    answers = [answer for _, answer in texts]
    last = max(answers)
    hidden = model.base_model(ids, use_cache=False).last_hidden_state[:, -last - 1 : -1]
    best = model.lm_head(hidden).argmax(-1)
    right = best == ids[:, -last:]
    return [bool(row[last - answer :].all()) for row, answer in zip(right, answers, strict=True)]


def table(lines: list[dict[str, Any]]) -> None:
    sums: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
    depths: dict[Any, dict[float, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for line in lines:
        key = line["context"], tuple(line["dense"]), line["task"], line["method"]
        for pair in (sums[key], depths[key][line["depth"]]):
            pair[0] += line["found"]
            pair[1] += line["of"]
    for key, (right, count) in sorted(sums.items(), key=lambda item: item[0][:3]):
        context, dense, task, method = key
        full = sums.get((context, dense, task, "full"), [0, 0])
        share = f"{100 * right / count / (full[0] / full[1]):6.1f}% of full" if full[0] else ""
        each = " ".join(f"{r}/{n}" for _, (r, n) in sorted(depths[key].items()))
        print(f"{context:6} dense {list(dense)!s:4} {task:8} {method:32} {right:4}/{count} {share}  by depth {each}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--trials", type=int, default=4, help="texts per task and depth")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", default=str(Path(__file__).with_name("methods.yaml")))
    parser.add_argument("--only", nargs="*", help="of the methods, these; full is always run")
    parser.add_argument("--dense", type=int, nargs="*", default=[])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing new after so long")
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    methods = read_methods(args.methods, [*{"full": 0, **dict.fromkeys(args.only, 0)}] if args.only else None)
    model, tokenizer = load(args.model, device=args.device)
    done = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    have = {(x["context"], tuple(x["dense"]), x["task"], x["method"], x["depth"], x["of"]) for x in done}
    books = [ids[0].tolist() for ids in passages(args.data, tokenizer, args.context, args.trials)]
    begin = time.time()
    for task in args.tasks:
        for name, settings in methods.items():
            for depth in DEPTHS:
                place = (args.context, tuple(args.dense), task, name, depth, len(books))
                if place in have or time.time() - begin > args.seconds:
                    continue
                texts = [example(tokenizer, ids, task, depth, seed) for seed, ids in enumerate(books)]
                right: list[bool] = []
                with reading(model, settings, args.dense):
                    for a in range(0, len(texts), args.batch):
                        right += found(model, texts[a : a + args.batch])
                line = {
                    "context": args.context, "dense": args.dense, "task": task, "method": name, "depth": depth,
                    "found": sum(right), "of": len(right),
                }  # fmt: skip
                done.append(line)
                args.out.parent.mkdir(parents=True, exist_ok=True)
                with args.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            print(task, name, f"{time.time() - begin:.0f} s", file=sys.stderr, flush=True)
    table(done)


if __name__ == "__main__":
    main()
