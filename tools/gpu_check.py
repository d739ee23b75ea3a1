"""What a person with a GPU runs first: is it right there, is it compiled, and how fast is it? About five minutes.

    python tools/gpu_check.py                 on the GPU: prints the table, and writes it into docs/gpu.md
    python tools/gpu_check.py --toy           on any machine, with toy sizes: whether this script works; writes nothing

First walks of every kind are compared with themselves on the CPU in float32: whole, by a cache, and by compiled steps
at fixed addresses. Then models in bf16, and a Llama of as many layers, compiled alike: tokens per second of training
steps and of decoded tokens, the peak of memory, and the share of the time that reading weights and state takes at the
bandwidth of a large copy. What finds no memory, or no time, is left out by name.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from torch import Tensor

from foveate import FoveateConfig, FoveateForCausalLM, compile_decoding
from foveate.bench.decode import time_decoding
from foveate.bench.peers import make_models
from foveate.bench.roofline import synchronize
from foveate.bench.train import time_training

PAGE = Path(__file__).parents[1] / "docs" / "gpu.md"
BEGIN, END = "<!-- made by tools/gpu_check.py: begin -->", "<!-- made by tools/gpu_check.py: end -->"
PARITY = 2e-3  # of logits in float32 without TensorFloat, relative to the largest

WALKS = {
    "plain": "2@1",
    "hourglass": "1@1 2@4 1@1",
    "nested": "1@1 1@4 2@16 1@4 1@1",
    "top-down": "0@1 1@16 1@4 1@1",
    "bottom-up": "1@1 1@4 1@16 0@1",
    "windows": "1@1:window5 1@4 1@1:window5",
    "sinks": "1@1:sink5 1@4 1@1:sink3",
    "fovea": "2@1:fovea4,groups=4,scales=2/4",
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """Models of one size, and what is asked of them."""

    name: str
    hidden: int
    heads: int
    walks: tuple[str, ...]
    train: tuple[tuple[int, int], ...]  # batch and context
    decode: tuple[int, ...]  # contexts
    vocab: int = 32_000


SIZES = (
    Size(
        name="100M",
        hidden=768,
        heads=12,
        walks=("12@1", "2@1 4@4 10@16 4@4 2@1", "2@1:window512 4@4 10@16 4@4 2@1:window512"),
        train=((16, 2048), (1, 32_768)),
        decode=(2048, 32_768, 131_072),
    ),
    Size(
        name="1B",
        hidden=2048,
        heads=16,
        walks=("18@1", "3@1 4@4 15@16 4@4 3@1"),
        train=((4, 2048),),
        decode=(2048, 32_768),
    ),
)
TOY = (
    Size(
        name="toy",
        hidden=32,
        heads=2,
        walks=("2@1", "1@1 1@4 1@1:window8"),
        train=((1, 32),),
        decode=(40,),
        vocab=64,
    ),
)


class Clock:
    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.until


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parity(walk: str, device: torch.device, backend: str) -> dict[str, Any]:
    """The largest difference of logits to the CPU's, relative; and graphs and breaks of compiled steps."""
    torch.manual_seed(0)
    shape = {"vocab_size": 97, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = FoveateForCausalLM(FoveateConfig(walk=walk, **shape)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.1).add_("norm" in name)
    ids = torch.randint(97, (2, 96))
    with torch.inference_mode():
        expected = model(ids, use_cache=False).logits
        model, there = model.to(device), ids.to(device)
        whole = model(there, use_cache=False).logits
        growing = by_tokens(model, there, model.make_cache(2))
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        compile_decoding(model, **({} if backend == "inductor" else {"backend": backend}))
        fixed = by_tokens(model, there, model.make_cache(2, max_length=96))
    largest = float(expected.abs().max())
    ways = {"whole": whole, "cache": growing, "compiled": fixed}
    record: dict[str, Any] = {way: float((got.cpu() - expected).abs().max()) / largest for way, got in ways.items()}
    counters = torch._dynamo.utils.counters
    record |= {"graphs": counters["stats"]["unique_graphs"], "breaks": sum(counters["graph_break"].values())}
    return {"kind": "parity", "walk": walk, **record}


def by_tokens(model: Any, ids: Tensor, cache: Any) -> Tensor:
    logits = [model(ids[:, :40], past_key_values=cache, use_cache=True).logits]
    # what a captured graph gives is overwritten by its next replay
    logits += [model(ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits.clone() for t in range(40, 96)]
    return torch.cat(logits, 1)


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes per second that a large copy reads and writes."""
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size / best


def measure(
    size: Size, device: torch.device, bandwidth: float, clock: Clock, compiled: bool
) -> Iterator[dict[str, Any]]:
    bf16, dtype = device.type == "cuda", torch.bfloat16 if device.type == "cuda" else torch.float32
    shapes = [{"walk": walk, "hidden_size": size.hidden, "num_attention_heads": size.heads} for walk in size.walks]

    def models(kind: torch.dtype) -> dict[str, Any]:
        return make_models(shapes, ["llama"], vocab_size=size.vocab, device=device, dtype=kind)

    def alone(made: dict[str, Any], work: Callable[[dict[str, Any]], Any]) -> Iterator[tuple[Any, int]]:
        """Each model by itself, for its peak of memory."""
        for name in list(made):
            if clock.is_over:
                say(f"{size.name} {name}: left out, the time is over")
                continue
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            try:
                for result in work({name: made[name]}):
                    yield result, torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
            except torch.OutOfMemoryError:
                say(f"{size.name} {name}: left out, it finds no memory")
            del made[name]
            gc.collect()
            torch._dynamo.reset()

    for batch, context in size.train:
        timing: dict[str, Any] = {"context": context, "batch": batch, "steps": 5, "bf16": bf16, "compiled": compiled}
        for r, peak in alone(models(torch.float32), lambda made, t=timing: time_training(made, **t, note=say)):
            yield {
                "kind": "train", "size": size.name, "name": r.name, "params": r.params, "batch": batch,
                "context": context, "tokens_per_s": r.train_tokens_per_s, "peak_bytes": peak,
            }  # fmt: skip
    decoded = {"context": list(size.decode), "batch": 1, "tokens": 64, "repeats": 3, "compiled": compiled}
    for r, peak in alone(models(dtype), lambda made: time_decoding(made, **decoded, roofline=True, note=say)):
        share = None if r.read_bytes is None else r.read_bytes / bandwidth / (r.ms_per_token / 1e3)
        yield {
            "kind": "decode", "size": size.name, "name": r.name, "batch": 1, "context": r.context,
            "tokens_per_s": r.tokens_per_s, "peak_bytes": peak, "roofline_share": share,
        }  # fmt: skip


def table(records: list[dict[str, Any]], device: str) -> str:
    lines = [
        f"On {device}, torch {torch.__version__}: the largest difference of logits to the CPU's in float32, relative "
        "to the largest logit.",
        "",
        "| walk | whole | by a cache | by compiled steps | graphs | breaks |",
        "|---|---|---|---|---|---|",
    ]
    for r in (r for r in records if r["kind"] == "parity"):
        ways = " | ".join(f"{r[way]:.0e}" for way in ("whole", "cache", "compiled"))
        lines.append(f"| `{r['walk']}` | {ways} | {r['graphs']} | {r['breaks']} |")
    lines += ["", "| | size | walk | batch | context | tokens/s | of Llama's | peak | roofline share |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    measured = [r for r in records if r["kind"] != "parity"]
    for r in measured:
        same = ("kind", "size", "batch", "context")
        llama = [o for o in measured if o["name"] == "llama" and all(o[key] == r[key] for key in same)]
        ratio = f"{r['tokens_per_s'] / llama[0]['tokens_per_s']:.2f}" if llama else ""
        share = f"{r['roofline_share']:.2f}" if r.get("roofline_share") else ""
        peak = f"{r['peak_bytes'] / 1e9:.2f} GB" if r["peak_bytes"] else ""
        lines.append(
            f"| {r['kind']} | {r['size']} | `{r['name']}` | {r['batch']} | {r['context']:,} | "
            f"{r['tokens_per_s']:,.0f} | {ratio} | {peak} | {share} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--toy", action="store_true", help="toy sizes on the CPU, to see whether this script works")
    parser.add_argument("--seconds", type=float, default=270, help="after which nothing more begins (default: 270)")
    parser.add_argument("--json", action="store_true", help="one JSON object per measurement on standard output")
    args = parser.parse_args()
    if not args.toy and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --toy runs the script on the CPU")
    device = torch.device("cpu" if args.toy else "cuda")
    name = "a CPU, toy sizes" if args.toy else torch.cuda.get_device_name()
    torch.backends.cuda.matmul.allow_tf32 = False
    clock, records = Clock(args.seconds), []

    def keep(record: dict[str, Any]) -> None:
        records.append(record)
        if args.json:
            print(json.dumps(record), flush=True)

    for walk in list(WALKS.values())[: 2 if args.toy else None]:
        if not clock.is_over:
            keep(parity(walk, device, "eager" if args.toy else "inductor"))
    bandwidth = copy_bandwidth(device, 1 << (20 if args.toy else 30))
    for size in TOY if args.toy else SIZES:
        for record in measure(size, device, bandwidth, clock, compiled=not args.toy):
            keep(record)
    made = table(records, name)
    if not args.json:
        print(made)
    if not args.toy:
        text = PAGE.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{made}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    wrong = [
        r["walk"]
        for r in records
        if r["kind"] == "parity" and (max(r["whole"], r["cache"], r["compiled"]) > PARITY or r["breaks"])
    ]
    if wrong:
        sys.exit(f"not as on the CPU, or broken into graphs: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
