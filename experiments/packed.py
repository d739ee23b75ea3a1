"""What packing costs: training steps on rows of several documents beside steps on as long rows of one text.

    python experiments/packed.py [--context 1024] [--batch 2] [--steps 8] [--documents 8]

A step on each in turn, in one process: forward, backward and a fused AdamW step, in fp32. Packed rows are cut at random
places, drawn anew for each step. Prints tokens per second, and the ratio of each turn's: median, lowest, highest.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from foveate import FoveateConfig, FoveateForCausalLM
from foveate.stats import ratio_by_turn, spread

WALKS = ("4@1", "4@1:window64", "1@1 4@4 1@1", "1@1 2@4 2@16 1@4 1@1", "4@1:fovea64,groups=8,scales=4/16")
VOCABULARY, WARM_UP = 512, 2


def cut_rows(batch: int, context: int, documents: int, draw: torch.Generator) -> Tensor:
    """Positions [B, T] that start over at so many random places of each row."""
    positions = torch.arange(context).repeat(batch, 1)
    for row in positions:
        starts = torch.randperm(context - 1, generator=draw)[: documents - 1] + 1
        begins = torch.zeros(context, dtype=torch.long)
        begins[starts] = starts
        row -= begins.cummax(0).values
    return positions


def step(model: FoveateForCausalLM, optimizer: torch.optim.Optimizer, ids: Tensor, positions: Tensor | None) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    model(input_ids=ids, labels=ids, position_ids=positions, use_cache=False).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("context", 1024), ("batch", 2), ("steps", 8), ("documents", 8), ("width", 256)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    print(
        f"{args.batch} rows of {args.context} tokens, width {args.width}, {torch.get_num_threads()} threads; "
        f"packed: {args.documents} documents in each row"
    )
    for walk in WALKS:
        draw = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        model = FoveateForCausalLM(FoveateConfig(walk=walk, vocab_size=VOCABULARY, hidden_size=args.width)).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        ids = torch.randint(VOCABULARY, (args.batch, args.context), generator=draw)
        whole, packed = [], []
        for turn in range(-WARM_UP, args.steps):
            positions = cut_rows(args.batch, args.context, args.documents, draw)
            one, several = step(model, optimizer, ids, None), step(model, optimizer, ids, positions)
            if turn >= 0:
                whole.append(one)
                packed.append(several)
        ratio = ratio_by_turn(whole, packed)
        rates = [args.batch * args.context / spread(seconds).median for seconds in (whole, packed)]
        print(
            f"{walk:34} one text {rates[0]:7.0f} tokens/s, packed {rates[1]:7.0f}, "
            f"ratio {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
