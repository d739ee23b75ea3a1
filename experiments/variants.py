"""``foveate train`` and ``eval`` of models with something that the package does not offer, to see what it is worth.

    python experiments/variants.py train --walk 14@1 --out runs/conv --taps 4 ...
    python experiments/variants.py train --walk "1@1 4@4 1@1" --out runs/rate --coarse-rate 0.5 ...
    python experiments/variants.py eval runs/conv ...

--taps N          a short causal convolution over N positions before the attention of every layer. What a linear pooling
                  does for a hierarchy, mixing neighbours before attention looks for them, it does for a plain model. It
                  starts at zero, as no convolution.
--coarse-rate X   the layers above stride 1 learn at X times the rate
--pool-start mean linear pooling starts as the mean of a group, not at random
--embedding-init X  embeddings start with standard deviation X, whatever the width
--branch-init X   the last matrices of residual branches start with standard deviation X, whatever the width and depth
--branch-scale X  they start X times as large as they would, or as --branch-init has them

Nothing else can load a run with a convolution.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

import foveate.loading.decoding
import foveate.train.run
import foveate.train.trainer
from foveate.cli import main
from foveate.errors import FoveateError
from foveate.model.layers import Layer, Stack
from foveate.model.resample import Downsample
from foveate.train.build import build_model
from foveate.train.optimizer import make_optimizer


class ShortConvolution(nn.Module):
    """Adds to every position of [R, S, D] a weighted sum of itself and of those before it, per channel."""

    def __init__(self, taps: int, width: int) -> None:
        super().__init__()
        self.taps_KD = nn.Parameter(torch.zeros(taps, width))

    def forward(self, x_RSD: Tensor) -> Tensor:
        K, S = len(self.taps_KD), x_RSD.shape[1]
        past = pad(x_RSD, (0, 0, K - 1, 0))
        return x_RSD + sum(past[:, K - 1 - k : K - 1 - k + S] * self.taps_KD[k] for k in range(K))


def add_convolutions(model: nn.Module, taps: int) -> None:
    for layer in [module for module in model.modules() if isinstance(module, Layer)]:
        layer.convolution = ShortConvolution(taps, layer.qkv_proj.in_features)
        layer.qkv_proj.register_forward_pre_hook(lambda _, inputs, convolve=layer.convolution: convolve(inputs[0]))


def load(path: str, **_: Any) -> tuple[Any, Any]:
    """A run and its tokenizer, in fp32, with the convolutions that its weights are of."""
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), dtype=torch.float32)
    weights = load_file(Path(path, "model.safetensors"))
    if taps := [weight for name, weight in weights.items() if name.endswith("taps_KD")]:
        add_convolutions(model, len(taps[0]))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert set(missing) <= {"lm_head.weight"}, missing  # tied
    assert not unexpected, unexpected
    model.tie_weights()
    return model.eval(), AutoTokenizer.from_pretrained(path)


def start_as_mean(model: nn.Module) -> None:
    for pool in [module for module in model.modules() if isinstance(module, Downsample) and module.kind == "linear"]:
        if pool.fine.width != pool.coarse.width:
            raise FoveateError(
                f"--pool-start mean: a mean keeps the width, not from {pool.fine.width} to {pool.coarse.width}"
            )
        pool.proj.weight.data = torch.eye(pool.fine.width).repeat(1, pool.factor) / pool.factor


def two_rates(coarse_rate: float) -> tuple[Callable[..., Any], Callable[[Any, float], float]]:
    """How an optimizer is made and its rate set, so that layers above stride 1 learn at ``coarse_rate`` of it."""

    def make(model: nn.Module, *args: Any) -> Any:
        optimizer = make_optimizer(model, *args)
        runs = [module for module in model.modules() if isinstance(module, Stack) and module.stride > 1]
        coarse = {id(parameter) for run in runs for parameter in run.parameters()}
        for group in list(optimizer.param_groups):
            moved = [parameter for parameter in group["params"] if id(parameter) in coarse]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in coarse]
            if moved:
                optimizer.add_param_group(group | {"params": moved, "share_of_rate": coarse_rate})
        return optimizer

    def set_rate(optimizer: Any, rate: float) -> float:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("share_of_rate", 1.0)
        return rate

    return make, set_rate


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--taps", type=int, default=0)
    parser.add_argument("--coarse-rate", type=float, default=1.0)
    parser.add_argument("--pool-start", choices=("random", "mean"), default="random")
    parser.add_argument("--branch-init", type=float)
    parser.add_argument("--branch-scale", type=float, default=1.0)
    parser.add_argument("--embedding-init", type=float)
    return parser


def run(words: list[str]) -> int:
    variant, words = options().parse_known_args(words)
    if variant.taps < 0 or variant.coarse_rate < 0:
        options().error("--taps and --coarse-rate cannot be below 0")
    if min(variant.embedding_init or 0, variant.branch_init or 0, variant.branch_scale) < 0:
        options().error("--embedding-init, --branch-init and --branch-scale cannot be below 0")

    def build(*args: Any) -> Any:
        model = build_model(*args)
        if variant.taps:
            add_convolutions(model, variant.taps)
        if variant.embedding_init is not None:
            embedding = model.get_input_embeddings().weight
            embedding.data *= variant.embedding_init / embedding.std()
        for layer in [module for module in model.modules() if isinstance(module, Layer)]:
            for branch in (layer.o_proj, layer.down_proj):
                if variant.branch_init is not None:
                    branch.weight.data *= variant.branch_init / branch.weight.std()
                branch.weight.data *= variant.branch_scale
        if variant.pool_start == "mean":
            start_as_mean(model)
        return model

    foveate.train.run.build_model = build
    if variant.coarse_rate != 1:
        make, set_rate = two_rates(variant.coarse_rate)
        foveate.train.trainer.make_optimizer, foveate.train.trainer.set_rate = make, set_rate
    foveate.loading.decoding.load_for_decoding = load
    return main(words)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
