"""How many graphs a compiler makes of each kind of walk, how often it compiles again, and what the graphs give.

    python tools/graphs.py [--backend eager|aot_eager|inductor] [NAME …]

Training is a forward and a backward of four lengths, with and without a mask of padding, under ``fullgraph=True``:
any break is an error. Decoding is 40 steps with a cache of declared length. Errors are the largest difference to the
model uncompiled, in float64; for training also of gradients.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
import torch._dynamo
from torch import Tensor

from foveate import FoveateConfig, FoveateForCausalLM, compile_decoding

WALKS: dict[str, dict[str, Any]] = {
    "plain": {"walk": "2@1"},
    "hourglass": {"walk": "1@1 2@4 1@1"},
    "nested": {"walk": "1@1 1@4 2@16 1@4 1@1"},
    "top-down": {"walk": "0@1 1@16 1@4 1@1"},
    "bottom-up": {"walk": "1@1 1@4 1@16 0@1"},
    "windows": {"walk": "1@1:window5 1@4 1@1:window5"},
    "sinks": {"walk": "1@1:sink5 1@4 1@1:sink3"},
    "fovea": {"walk": "2@1:fovea4,groups=4,scales=2/4"},
    "fovea, all kept": {"walk": "1@1:fovea4,groups=4,scales=2/4,tail=keep 1@2 1@1"},
    "mixed": {"walk": "1@1:window6 1@2:fovea4,groups=4,scales=2/4 1@4 1@1:sink4", "num_key_value_heads": 1},
    "linear moves": {"walk": "1@1 1@3 1@1", "pooling": "linear", "expanding": "linear"},
    "attention moves": {"walk": "1@1 1@3 1@1", "pooling": "attention", "expanding": "attention"},
}
LENGTHS = (48, 49, 61, 97)
STEPS = 40


def make_model(shape: dict[str, Any]) -> FoveateForCausalLM:
    torch.manual_seed(0)
    config = FoveateConfig(vocab_size=37, hidden_size=16, num_attention_heads=2, intermediate_size=24, **shape)
    model = FoveateForCausalLM(config).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3).add_("norm" in name)  # what starts at zero would hide its part of the model
    return model


def counts() -> tuple[int, int]:
    """Graphs, and breaks, since the last reset."""
    counters = torch._dynamo.utils.counters
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


def fresh() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def gradients(model: Any, forward: Any, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    output = forward(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False)
    wanted = list(model.parameters())
    grads = torch.autograd.grad(output.loss, wanted, allow_unused=True, materialize_grads=True)
    return output.logits.detach(), list(grads)


def training(model: Any, backend: str, masked: bool) -> tuple[int, int, float]:
    """Graphs, breaks, and the largest error."""
    fresh()
    compiled, error = torch.compile(model.train(), backend=backend, fullgraph=True), 0.0
    for length in LENGTHS:
        ids = torch.randint(3, 37, (2, length))
        mask = None
        if masked:
            mask = torch.ones_like(ids)
            mask[0, : length // 3] = 0
        (logits, grads), (expected, their_grads) = (gradients(model, f, ids, mask) for f in (compiled, model))
        pairs = zip([logits, *grads], [expected, *their_grads], strict=True)
        error = max(error, *(float((a - b).abs().max()) for a, b in pairs))
    return *counts(), error


@torch.inference_mode()
def decoding(model: Any, backend: str, ragged: bool) -> tuple[int, int, float]:
    fresh()
    ids = torch.randint(3, 37, (2, 20 + STEPS))
    mask = torch.ones_like(ids[:, :20])
    if ragged:
        mask[0, :7] = 0
    compile_decoding(model.eval(), backend=backend, fullgraph=True)
    found = []
    for cache in (model.make_cache(2, max_length=20 + STEPS), model.make_cache(2)):
        model(ids[:, :20], attention_mask=mask if ragged else None, past_key_values=cache)
        steps = [model(ids[:, t : t + 1], past_key_values=cache).logits for t in range(20, 20 + STEPS)]
        found.append(torch.cat(steps, 1))
    return *counts(), float((found[0] - found[1]).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--backend", default="aot_eager", help="aot_eager (default), eager or inductor")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(WALKS)} (default: all)")
    args = parser.parse_args()
    unknown = set(args.names) - set(WALKS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(WALKS)}")
    cases = {
        "train": (training, False),
        "masked": (training, True),
        "decode": (decoding, False),
        "ragged": (decoding, True),
    }
    print(
        f"graphs of {len(LENGTHS)} lengths (train, masked) or {STEPS} tokens (decode, ragged), breaks, error;",
        args.backend,
    )
    print(f"{'walk':16}" + "".join(f"{case:>18}" for case in cases), flush=True)
    broken = 0
    for name in args.names or WALKS:
        line = f"{name:16}"
        for measure, option in cases.values():
            graphs, breaks, error = measure(make_model(WALKS[name]), args.backend, option)
            broken += breaks
            line += f"{f'{graphs} {breaks} {error:.0e}':>18}"
        print(line, flush=True)
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
