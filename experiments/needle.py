"""How far back can a model still use exact words? The price of blur, measured.

    python experiments/needle.py RUN [RUN ...] --data FILE [--out FOLDER]

A passage of held-out text ends with a needle: a few words of another book. Somewhere before stands the same needle
(treated) or another one (control); all else is equal. What the first occurrence is worth is the difference in loss on
the second one's tokens after its first few, which serve as the cue. One JSON line per run and distance on standard
output; with --out, the curve as PNG and SVG.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from foveate import load
from foveate.data.corpus import Corpus, open_corpus
from foveate.errors import FoveateError

CUE = 6  # tokens of the needle that are not scored: they say which needle it is


def passages(corpus: Corpus, context: int, needle: int, count: int, seed: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Passages with two needles each, from three different documents where there are three."""
    random = np.random.default_rng(seed)
    documents = [d for d in range(len(corpus.text_bytes)) if corpus.starts[d + 1] - corpus.starts[d] > context]
    if len(documents) < 3:
        raise FoveateError(f"--data has {len(documents)} documents of more than {context} tokens; it needs 3")
    for _ in range(count):
        chosen = random.choice(documents, 3, replace=False)
        starts = [random.integers(corpus.starts[d], corpus.starts[d + 1] - context) for d in chosen]
        lengths = (context, needle, needle)
        yield tuple(np.asarray(corpus.tokens[s : s + n], np.int64) for s, n in zip(starts, lengths, strict=True))


@torch.inference_mode()
def worth(model: Any, corpus: Corpus, args: argparse.Namespace, distance: int) -> np.ndarray:
    """Nats per scored token that the needle ``distance`` tokens before is worth, one number per passage."""
    treated, control = [], []
    n = args.needle
    for text, needle, other in passages(corpus, args.context, n, args.passages, args.seed):
        text[-n:] = needle
        place = slice(args.context - n - distance, args.context - distance)
        for rows, planted in ((treated, needle), (control, other)):
            row = text.copy()
            row[place] = planted
            rows.append(row)
    ids = torch.from_numpy(np.stack(treated + control))
    losses = []
    for batch in ids.split(args.batch):
        logits = model(batch.to(model.device), logits_to_keep=n - CUE + 1).logits[:, :-1].float()
        targets = batch[:, CUE - n :].to(model.device)
        losses.append(cross_entropy(logits.transpose(1, 2), targets, reduction="none").mean(1).cpu())
    loss = torch.cat(losses).numpy()
    return loss[len(treated) :] - loss[: len(treated)]


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95% of the means of 2,000 bootstrap samples."""
    random = np.random.default_rng(seed)
    means = values[random.integers(len(values), size=(2000, len(values)))].mean(1)
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def plot(results: list[dict[str, Any]], out: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for run in dict.fromkeys(r["run"] for r in results):
        rows = [r for r in results if r["run"] == run]
        x = [r["distance"] for r in rows]
        (line,) = axes.plot(x, [r["nats"] for r in rows], marker="o", label=rows[0]["walk"] or run)
        axes.fill_between(
            x, [r["ci_low"] for r in rows], [r["ci_high"] for r in rows], alpha=0.15, color=line.get_color()
        )
    axes.set(xscale="log", xlabel="tokens back", ylabel="what the exact words are worth, nats per token")
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.legend(frameon=False)
    out.mkdir(parents=True, exist_ok=True)
    for kind in ("png", "svg"):
        figure.savefig(out / f"needle.{kind}", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--needle", type=int, default=24, help="tokens of the needle, its cue included (default: 24)")
    parser.add_argument("--distances", type=int, nargs="+", default=[24, 48, 96, 192, 384, 768, 960])
    parser.add_argument("--passages", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results = []
    for run in args.runs:
        model, tokenizer = load(run)
        corpus = open_corpus(args.data, tokenizer)
        for distance in args.distances:
            gain = worth(model, corpus, args, distance)
            low, high = interval(gain)
            walk = getattr(model.config, "walk", None)
            result = {"run": run, "walk": walk, "distance": distance, "nats": float(gain.mean())}
            result |= {"ci_low": low, "ci_high": high, "passages": len(gain), "needle": args.needle}
            results.append(result)
            print(json.dumps(result), flush=True)
    if args.out:
        plot(results, args.out)


if __name__ == "__main__":
    main()
