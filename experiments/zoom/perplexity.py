"""What reading less costs in perplexity: zoom and its rivals on the second half of books' passages.

    python experiments/zoom/perplexity.py MODEL --data books.jsonl.xz --context 2048 --books 4 --out runs/zoom.jsonl

Every token of a passage is read by the method, in all layers but the --dense ones; the second half is scored. Tokens
that need far text are those on which full attention beats a window of 256 by more than a nat. One JSON line per
method and book is appended to --out, and what is there already is not run again; the table is of the whole file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from rivals import read_methods, reading, reads
from torch.nn.functional import cross_entropy

from foveate import load
from foveate.data.documents import read_documents

THRESHOLD = 1.0  # nats
SKIPPED = 60_000  # characters of a book: prefaces and tables of contents
WINDOW = "window 256"


def passages(data: str, tokenizer: Any, context: int, books: int) -> list[torch.Tensor]:
    found = []
    for text in read_documents([data]):
        ids = tokenizer(text[SKIPPED : SKIPPED + 8 * context], add_special_tokens=False)["input_ids"][:context]
        if len(ids) == context:
            found.append(torch.tensor(ids)[None])
        if len(found) == books:
            break
    return found


@torch.inference_mode()
def losses(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Nats of each token of the second half."""
    half = ids.shape[1] // 2
    hidden = model.base_model(ids, use_cache=False).last_hidden_state[0, half - 1 : -1]
    targets = ids[0, half:]
    each = [
        cross_entropy(model.lm_head(h).float(), t, reduction="none")
        for h, t in zip(hidden.split(512), targets.split(512), strict=True)
    ]
    return torch.cat(each).double().cpu()


def table(lines: list[dict[str, Any]]) -> None:
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[line["context"], tuple(line["dense"]), line["method"]].append(line)
    for (context, dense, method), group in sorted(groups.items(), key=lambda item: item[0][:2]):
        full = {line["book"]: line for line in groups.get((context, dense, "full"), [])}
        window = {line["book"]: line for line in groups.get((context, dense, WINDOW), [])}
        group = [line for line in group if line["book"] in full and line["book"] in window]
        if not group:
            continue
        books = [line["book"] for line in group]
        tokens = sum(line["tokens"] for line in group)
        over = [(line["nats"] - full[line["book"]]["nats"]) / line["tokens"] for line in group]
        mean = sum(line["nats"] - full[line["book"]]["nats"] for line in group) / tokens
        far, count = (sum(line[name] for line in group) for name in ("far_nats", "far_tokens"))
        best, worst = (sum(where[b]["far_nats"] for b in books) for where in (full, window))
        kept = (worst - far) / (worst - best) if worst > best else math.nan
        print(
            f"{context:6} dense {list(dense)!s:4} {method:32} keys {group[0]['keys']:6.0f} summaries "
            f"{group[0]['summaries']:6.0f} ppl {math.exp(sum(line['nats'] for line in group) / tokens):7.3f} "
            f"over full {100 * math.expm1(mean):+6.2f}% (worst book {100 * math.expm1(max(over)):+6.2f}%) "
            f"far tokens {count} nats {far / max(count, 1):.3f} kept {100 * kept:5.1f}% books {len(group)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--books", type=int, default=4)
    parser.add_argument("--methods", default=str(Path(__file__).with_name("methods.yaml")))
    parser.add_argument("--only", nargs="*", help="of the methods, these; full and the window are always run")
    parser.add_argument("--dense", type=int, nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin nothing new after so long")
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    only = [*{"full": 0, WINDOW: 0, **dict.fromkeys(args.only, 0)}] if args.only else None
    methods = read_methods(args.methods, only)
    model, tokenizer = load(args.model, device=args.device)
    done = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    have = {(line["context"], tuple(line["dense"]), line["method"], line["book"]) for line in done}
    begin = time.time()
    for book, ids in enumerate(passages(args.data, tokenizer, args.context, args.books)):
        kept: dict[str, torch.Tensor] = {}
        for name, settings in methods.items():
            needed = name in ("full", WINDOW)
            there = (args.context, tuple(args.dense), name, book) in have
            if time.time() - begin > args.seconds or (there and not needed):
                continue
            start = time.time()
            with reading(model, settings, args.dense):
                kept[name] = losses(model, ids.to(model.device))
            if there or (not needed and len(kept) < 2):
                continue
            places = range(args.context // 2 - 1, args.context - 1, 7)  # every 7th stands for all
            keys, summaries = (
                sum(counts) / len(places) for counts in zip(*(reads(settings, p) for p in places), strict=True)
            )
            line = {
                "context": args.context, "dense": args.dense, "method": name, "book": book, "keys": keys,
                "summaries": summaries, "nats": float(kept[name].sum()), "tokens": len(kept[name]),
                "seconds": time.time() - start, "device": model.device.type,
            }  # fmt: skip
            done.append(line)
            if WINDOW in kept and "full" in kept:
                far = kept[WINDOW] - kept["full"] > THRESHOLD
                for other in done:
                    same = (other["book"], other["context"], other["dense"]) == (book, args.context, args.dense)
                    if same and other["method"] in kept:
                        other.update(far_nats=float(kept[other["method"]][far].sum()), far_tokens=int(far.sum()))
            print(name, f"{time.time() - start:.1f} s", file=sys.stderr, flush=True)
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text("".join(json.dumps(line) + "\n" for line in done))
    table([line for line in done if "far_nats" in line])


if __name__ == "__main__":
    main()
