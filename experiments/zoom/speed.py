"""Time per generated token and bytes held against context: zoom beside full attention, random weights and text.

    python experiments/zoom/speed.py --contexts 8k 32k 128k [--full-up-to 128k] [--dtype bf16] [--hidden 576 …]

A model of SmolLM2-135M's shape by default. Caches are filled with random keys, not read; then tokens are fed one at a
time, the contenders taking turns, and the median of the turns counts. One JSON line per context and contender.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

import foveate
from foveate.devices import DTYPES


def number(text: str) -> int:
    scale = {"k": 1 << 10, "m": 1 << 20}.get(text[-1].lower(), 1)
    return int(text[:-1] if scale > 1 else text) * scale


def filled(model: Any, cache: Any, context: int) -> Any:
    """The cache, holding ``context`` random keys and values in every layer."""
    config, dtype = model.config, model.dtype
    shape = (1, config.num_key_value_heads, min(context, 1 << 15), config.hidden_size // config.num_attention_heads)
    piece = torch.randn(shape, dtype=dtype, device=model.device)
    for layer in cache.layers:
        if hasattr(layer, "state"):
            layer.state.fill(context, piece)
            layer.columns, layer.is_initialized = context, True
        else:
            whole = piece.repeat(1, 1, -(-context // piece.shape[2]), 1)[:, :, :context]
            layer.update(whole, whole.clone())
    return cache


@torch.inference_mode()
def one(model: Any, cache: Any, context: int, step: int) -> float:
    token = torch.tensor([[step % 50]], device=model.device)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    model(token, past_key_values=cache, position_ids=torch.tensor([[context + step]], device=model.device))
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def held(cache: Any) -> int:
    if isinstance(cache, foveate.ZoomCache):
        return cache.nbytes
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", nargs="+", default=["8k", "32k", "128k"])
    parser.add_argument("--full-up-to", default="128k")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--kv-heads", type=int, default=3)
    parser.add_argument("--keep", default="64,48,64", help="blocks, 64s and 16s looked into")
    parser.add_argument("--opened", type=int, default=29)
    parser.add_argument("--thumbnails", type=int, default=64)
    parser.add_argument("--dtype", default="fp32", choices=list(DTYPES))
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 8 // 3,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
        vocab_size=49152,
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(config).to(getattr(torch, DTYPES[args.dtype])).to(args.device).eval()
    keep = tuple(None if word == "all" else int(word) for word in args.keep.split(","))
    plan = foveate.ZoomPlan(keep=keep, opened=args.opened, thumbnails=args.thumbnails)
    base: dict[str, float] = {}
    for text in args.contexts:
        context = number(text)
        zoomed = foveate.zoom(model, plan)
        zoom_cache = filled(model, zoomed.cache(), context)
        zoomed.undo()
        full_cache = filled(model, DynamicCache(config=config), context) if context <= number(args.full_up_to) else None
        times: dict[str, list[float]] = {"zoom": [], "full": []}
        for step in range(args.steps):
            with foveate.zoom(model, plan):
                times["zoom"].append(one(model, zoom_cache, context, step))
            if full_cache is not None:
                times["full"].append(one(model, full_cache, context, step))
        for name, cache in (("zoom", zoom_cache), ("full", full_cache)):
            if cache is None:
                continue
            ms = statistics.median(times[name][2:])
            base.setdefault(name, ms)
            keys, summaries = plan.reads(context) if name == "zoom" else (context, 0)
            line = {
                "context": context, "reader": name, "ms_per_token": round(ms, 2),
                "over_first": round(ms / base[name], 2), "keys": keys, "summaries": summaries,
                "cache_bytes": held(cache), "layers": args.layers, "dtype": args.dtype, "device": args.device,
                "threads": torch.get_num_threads(),
            }  # fmt: skip
            if name == "zoom" and times["full"]:
                line["times_faster_than_full"] = round(statistics.median(times["full"][2:]) / ms, 1)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
