"""Budgets by head, calibrated on books that are not evaluated: writes the plans that methods.yaml can name.

python experiments/zoom/calibrate.py MODEL --data books.jsonl.xz --context 4096 --skip 12 --books 2 --out plans.json
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

from perplexity import passages

from foveate import ZoomPlan, load
from foveate.hf.zoom_budget import calibrate, save_plans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--skip", type=int, default=0, help="books left out: those that are evaluated")
    parser.add_argument("--books", type=int, default=2)
    parser.add_argument("--keep", default="all,48,64")
    parser.add_argument("--opened", type=int, default=29)
    parser.add_argument("--thumbnails", type=int, default=64)
    parser.add_argument("--device")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    model, tokenizer = load(args.model, device=args.device)
    keep = tuple(None if word == "all" else int(word) for word in args.keep.split(","))
    plan = ZoomPlan(keep=keep, opened=args.opened, thumbnails=args.thumbnails)
    texts = passages(args.data, tokenizer, args.context, args.skip + args.books)[args.skip :]
    start = time.time()
    plans = calibrate(model, texts, plan)
    save_plans(args.out, plans)
    counts = Counter(opened for each in plans for opened in each.opened)  # type: ignore[union-attr]
    heads = sum(counts.values())
    print(f"{len(texts)} texts of {args.context}: {time.time() - start:.0f} s; heads by groups opened, of {heads}:")
    print(dict(sorted(counts.items())), f"mean {sum(o * n for o, n in counts.items()) / heads:.1f}")


if __name__ == "__main__":
    main()
