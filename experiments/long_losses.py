"""Where one model of a long run is better than another: by how often the token was in training, and by place.

    python experiments/long_losses.py --pack PACK --runs runs/long_muon --models 10M-plain-0 10M-fine9-0

Of the losses that long.py kept for every held-out token. Differences are in nats a token, the second model less the
first; intervals are 95% bootstraps over documents. PACK is the folder of long_data.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from long import SCORED_EACH, training_tokens
from long_data import IGNORED, held_out

from foveate.stats import intervals, resampled_sums

COUNTS = (0, 1_000, 10_000, 100_000, 1_000_000)  # the tokens seen in training, of about 53M
PLACES = (1, 4, 16, 64, 128, 256, 512)


def rows(bin_NT: np.ndarray, scored_NT: np.ndarray, first_NT: np.ndarray, less_NT: np.ndarray, bins: int) -> list[str]:
    """A row per bin, from its tokens, the loss of the first model there and the difference to it."""
    found = []
    documents = scored_NT.shape[0] * scored_NT.shape[1] // SCORED_EACH
    for place in range(bins):
        here_NT = scored_NT & (bin_NT == place)
        counts_D = here_NT.reshape(documents, -1).sum(1)
        sums_D = (less_NT * here_NT).reshape(documents, -1).sum(1)
        drawn_R2 = resampled_sums(np.stack((sums_D, counts_D), 1), seed=0)
        low, high = (float(end[0]) for end in intervals(drawn_R2[:, :1] / np.maximum(drawn_R2[:, 1:], 1)))
        total = int(counts_D.sum())
        loss = float((first_NT * here_NT).sum() / max(total, 1))
        found.append(f"{total:,} | {loss:.3f} | {sums_D.sum() / max(total, 1):+.3f} [{low:+.3f}, {high:+.3f}] |")
    return found


def names(edges: tuple[int, ...]) -> list[str]:
    return [
        f"{low:,} to {high - 1:,}" if high else f"{low:,} and more"
        for low, high in zip(edges, (*edges[1:], 0), strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--models", nargs=2, required=True, metavar=("FIRST", "SECOND"))
    parser.add_argument("--context", type=int, default=512)
    args = parser.parse_args()
    windows = held_out(args.pack, args.context, SCORED_EACH)
    scored_NT = windows.targets != IGNORED
    first_NT, second_NT = (np.load(args.runs / "cases" / f"{name}.npy").astype(np.float64) for name in args.models)
    less_NT = second_NT - first_NT
    seen_V = np.bincount(training_tokens(args.pack), minlength=int(windows.targets.max()) + 1)
    counts_NT = seen_V[np.where(scored_NT, windows.targets, 0)]
    count_bins = np.searchsorted(COUNTS, counts_NT, side="right") - 1
    place_bins = np.searchsorted(PLACES, np.arange(1, args.context + 1), side="left")
    head = f"| tokens | loss of {args.models[0]} | {args.models[1]} less that, nats |\n|---|---|---|---|"
    nowhere_NT = np.zeros_like(counts_NT)
    print("| times in training " + head)
    print("| all |", rows(nowhere_NT, scored_NT, first_NT, less_NT, 1)[0])
    for name, row in zip(names(COUNTS), rows(count_bins, scored_NT, first_NT, less_NT, len(COUNTS)), strict=True):
        print(f"| {name} | {row}")
    print("\n| place in the window, up to " + head)
    place_NT = np.broadcast_to(place_bins, scored_NT.shape)
    for edge, row in zip(PLACES, rows(place_NT, scored_NT, first_NT, less_NT, len(PLACES)), strict=True):
        print(f"| {edge} | {row}")


if __name__ == "__main__":
    main()
