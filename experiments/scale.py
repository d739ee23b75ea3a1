"""Scale on paper: the cost model, fitted to steps that were measured, and what it says of larger models.

    python experiments/scale.py experiments/ledgers/long_steps.jsonl

Fit: a training step takes a time for each of its layers, whatever its width and stride (its kernels start one after the
other), a time for each layer that runs per token (norms, activations and sums read and write every number), and a time
for each floating-point operation, by least squares of the relative error over the steps with AdamW of the ledger, 8,192
tokens each, at width 256. The fovea is left out.

Prediction, of training: the second time grown with the width, and the third; the first is left out. On 64 devices: 64
times that, nothing counted for what they tell each other. Of decoding one text: a token reads the weights and the cache
of the layers that run, averaged over the clock, at a share of the memory's rate that is assumed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from foveate.cost import Cost, Load, predict
from foveate.roofline import DEVICES, SHARE_OF_BANDWIDTH, bytes_read
from foveate.spec import HierarchySpec

TOKENS = 8192  # a measured step
FITTED_WIDTH = 256
VOCABULARY = 128_000
SHOWN = ("h100", "h200")
WINDOW = 1024


SIZES = (("100M", 768, 12, 12), ("1B", 2048, 16, 16), ("7B", 4096, 32, 32))  # width, heads, layers of plain
CONTEXTS = (4_096, 32_768, 1_048_576)


def costs(walk: str, context: int, *, width: int = 256, heads: int = 4, vocabulary: int = 4096) -> Cost:
    spec = HierarchySpec.parse(walk, width=width, heads=heads)
    return predict(spec, Load(context=context, vocab_size=vocabulary, dtype="bfloat16"))


def work(cost: Cost) -> tuple[float, float, float]:
    """What a step of 8,192 tokens takes time for: layers, layers that run per token, TFLOPs."""
    return cost.layers, cost.layer_runs_per_token, cost.total.train_flops_per_token * TOKENS / 1e12


def fit(steps: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Milliseconds for each kind of work, and what they give for every step."""
    terms = np.array([work(costs(step["walk"], 512 if step["group"] == "10M" else TOKENS)) for step in steps])
    measured = np.array([step["graph_ms"] for step in steps])
    found = np.linalg.lstsq(terms / measured[:, None], np.ones(len(steps)), rcond=None)[0]
    return found.tolist(), (terms @ found).tolist()


def walks(layers: int) -> dict[str, str]:
    """Plain, and a walk of twice its layers shaped as the preset ``deep``, with windows on its finer levels or not."""
    fine, middle = max(1, layers // 12), max(2, layers // 4)
    coarse = 2 * layers - 3 * fine - 2 * middle
    deep = f"{fine}@1 {middle}@4 {coarse}@16 {middle}@4 {2 * fine}@1"
    near = f":window{WINDOW}"
    local = f"{fine}@1{near} {middle}@4{near} {coarse}@16 {middle}@4{near} {2 * fine}@1{near}"
    return {"plain": f"{layers}@1", "deep": deep, "deep, windows": local}


def print_fit(steps: list[dict[str, Any]]) -> None:
    (per_layer, per_run, per_tflop), fitted = fit(steps)
    rate = 1e15 / per_tflop
    print(
        f"A step takes {per_layer:.3f} ms a layer, {per_run:.3f} ms a layer that runs per token, "
        f"{per_tflop:.2f} ms a TFLOP: {rate / 1e12:.0f} TFLOP/s, "
        f"{rate / DEVICES['h200'].flops:.2f} of what the device can.\n"
    )
    print("| context | walk | measured, ms | fitted, ms | off by |\n|---|---|---|---|---|")
    for step, ms in zip(steps, fitted, strict=True):
        context = 512 if step["group"] == "10M" else TOKENS
        off = ms / step["graph_ms"] - 1
        print(f"| {context:,} | `{step['walk']}` | {step['graph_ms']:.2f} | {ms:.2f} | {off:+.0%} |")


def print_scale(per_run: float, per_tflop: float) -> None:
    heads_of_table = (
        *("plain", "context", "walk", "parameters", "training, tokens/s", "on 64", "kept for backward, one text"),
        *("cache", "read for a token", *(f"tokens/s decoded, {name.upper()}" for name in SHOWN)),
    )
    print("\n| " + " | ".join(heads_of_table) + " |\n" + "|---" * len(heads_of_table) + "|")
    for size, width, heads, layers in SIZES:
        for context in CONTEXTS:
            for name, walk in walks(layers).items():
                cost = costs(walk, context, width=width, heads=heads, vocabulary=VOCABULARY)
                _, runs, tflops = work(cost)
                speed = TOKENS / (per_run * runs * width / FITTED_WIDTH + per_tflop * tflops) * 1e3
                read = bytes_read(cost)
                cells = [
                    *(size, f"{context:,}", name, f"{cost.total.params / 1e9:.2f}B", f"{speed:,.0f}"),
                    *(f"{64 * speed:,.0f}", f"{cost.total.backward_bytes / 1e9:,.0f} GB"),
                    *(f"{cost.total.cache_bytes / 1e9:.2f} GB", f"{read / 1e9:.2f} GB"),
                    *(f"{DEVICES[name].bandwidth * SHARE_OF_BANDWIDTH / read:,.0f}" for name in SHOWN),
                ]
                print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ledger", type=Path, help="of long.py --smoke")
    args = parser.parse_args()
    steps = [json.loads(line) for line in args.ledger.read_text().splitlines()]
    fitted_to = [step for step in steps if step["optimizer"] == "adamw" and "fovea" not in step["walk"]]
    print_fit(fitted_to)
    print_scale(*fit(fitted_to)[0][1:])


if __name__ == "__main__":
    main()
