"""Where in a long context models differ: losses by place in the sequence, and on the tokens that need far text.

    python experiments/by_place.py runs/long_8k_cpu/equal-time-plain-0 runs/long_8k_cpu/equal-time-fine6-local-0
        --data books-valid.jsonl.xz --context 8k --sequences 16

The runs share a tokenizer. A run that was trained in shorter contexts reads each token after half to all of its own:
more it has never seen. Which tokens need far text the first run decides, so in its own favour: those that it predicts
better by over ``--needs`` nats with all the text than with the last ``--near`` to twice as many tokens.
Differences are to the first run, in nats a token, with 95% bootstrap intervals over sequences.

Legend: N sequences, T tokens of one.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import yaml

from foveate.data.documents import read_documents
from foveate.data.encode import encode_documents
from foveate.data.reading import Reading
from foveate.loading import load
from foveate.probes.sequences import cut_sequences
from foveate.scoring import Scorer
from foveate.stats import intervals, resampled_sums
from foveate.values import count, length


def read_within(scorer: Scorer, ids_NT: np.ndarray, near: int) -> np.ndarray:
    """Nats [N, T] of every token, read in groups of ``near`` that each come after the ``near`` tokens before them."""
    first_NK = scorer.last(ids_NT[:, :near], near)
    later_NGR = np.lib.stride_tricks.sliding_window_view(ids_NT, 2 * near, axis=1)[:, ::near]
    N, G, R = later_NGR.shape
    later_NK = scorer.last(later_NGR.reshape(-1, R), near).reshape(N, G * near)
    return np.concatenate([first_NK, later_NK], 1)


def losses(run: Path, ids_NT: np.ndarray) -> tuple[np.ndarray, Scorer]:
    """Nats [N, T] under one run, in contexts as long as those of its training at most."""
    model, tokenizer = load(run)
    scorer = Scorer(model, tokenizer)
    own, T = int(yaml.safe_load((run / "foveate.yaml").read_text())["context"]), ids_NT.shape[1]
    with scorer.ready():
        if own >= T:
            return np.concatenate([scorer.last(ids_T[None], T) for ids_T in ids_NT]), scorer
        return read_within(scorer, ids_NT, own // 2), scorer


def mean(loss_NT: np.ndarray, here_NT: np.ndarray) -> tuple[float, float, float]:
    """The mean over the tokens that are ``here``, and its interval over sequences."""
    sums_N2 = np.stack([(loss_NT * here_NT).sum(1), here_NT.sum(1)], 1).astype(np.float64)
    drawn_R2 = resampled_sums(sums_N2, seed=0)
    low, high = (float(end[0]) for end in intervals(drawn_R2[:, :1] / np.maximum(drawn_R2[:, 1:], 1)))
    return float(sums_N2[:, 0].sum() / max(sums_N2[:, 1].sum(), 1)), low, high


def table(of: dict[str, np.ndarray], kinds: dict[str, np.ndarray]) -> str:
    """A row per kind of tokens: how many, the first run's loss, and what each other run has less that."""
    (first, first_NT), *others = of.items()
    rows = [["tokens", "how many", first, *(f"{name} less that" for name, _ in others)]]
    rows.append(["---"] * len(rows[0]))
    for kind, here_NT in kinds.items():
        cells = [kind, f"{int(here_NT.sum()):,}", f"{mean(first_NT, here_NT)[0]:.3f}"]
        for _, other_NT in others:
            value, low, high = mean(other_NT - first_NT, here_NT)
            cells.append(f"{value:+.3f} [{low:+.3f}, {high:+.3f}]")
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--context", type=length, default=8192)
    parser.add_argument("--sequences", type=count, default=16)
    parser.add_argument("--near", type=count, default=256)
    parser.add_argument("--needs", type=float, default=0.5)
    args = parser.parse_args()
    if args.context % args.near:
        parser.error(f"--near: {args.near} is not a part of --context {args.context}")
    _, tokenizer = load(args.runs[0])
    documents = [ids for _, ids in encode_documents(tokenizer, read_documents(args.data, reading=Reading()))]
    ids_NT = cut_sequences(documents, args.context, args.sequences, seed=0).ids
    T = args.context
    of: dict[str, np.ndarray] = {}
    for run in args.runs:
        of[run.name], scorer = losses(run, ids_NT)
        if run == args.runs[0]:
            with scorer.ready():
                near_NT = read_within(scorer, ids_NT, args.near)
            gained_NT = near_NT - of[run.name]
    place_T = np.broadcast_to(np.arange(T), ids_NT.shape)
    edges = [0, 64, *(2**power for power in range(8, T.bit_length()))]
    kinds = {"all": np.ones_like(ids_NT, bool)}
    for low, high in itertools.pairwise(edges):
        kinds[f"{low:,} to {high - 1:,} tokens before"] = (place_T >= low) & (place_T < high)
    far_NT = place_T >= 2 * args.near
    kinds["which need far text"] = far_NT & (gained_NT > args.needs)
    kinds["which do not"] = far_NT & (gained_NT <= args.needs)
    print(table(of, kinds))


if __name__ == "__main__":
    main()
