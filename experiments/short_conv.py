"""``foveate train`` and ``foveate eval`` of models with a short causal convolution before the attention of every layer.

    python experiments/short_conv.py train --walk 14@1 --out runs/conv ...
    python experiments/short_conv.py eval runs/conv ...

What a linear pooling does for a hierarchy, mixing neighbours before attention looks for them, a depthwise convolution
over four positions does for a plain model. It starts at zero, as no convolution, and is for experiments: nothing else
can load such a run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

import foveate.loading.decoding
import foveate.train.run
from foveate.cli import main
from foveate.model.layers import Layer
from foveate.train.build import build_model

TAPS = 4


class ShortConvolution(nn.Module):
    """Adds to every position of [R, S, D] a weighted sum of itself and the three before it, per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.taps_KD = nn.Parameter(torch.zeros(TAPS, width))

    def forward(self, x_RSD: Tensor) -> Tensor:
        S = x_RSD.shape[1]
        past = pad(x_RSD, (0, 0, TAPS - 1, 0))
        return x_RSD + sum(past[:, TAPS - 1 - k : TAPS - 1 - k + S] * self.taps_KD[k] for k in range(TAPS))


def with_convolutions(model: Any) -> Any:
    for layer in [module for module in model.modules() if isinstance(module, Layer)]:
        layer.convolution = ShortConvolution(layer.qkv_proj.in_features)
        layer.qkv_proj.register_forward_pre_hook(lambda _, inputs, convolve=layer.convolution: convolve(inputs[0]))
    return model


def load_with_convolutions(path: str, **_: Any) -> tuple[Any, Any]:
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    model = with_convolutions(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), dtype=torch.float32))
    missing, unexpected = model.load_state_dict(load_file(Path(path, "model.safetensors")), strict=False)
    assert set(missing) <= {"lm_head.weight"}, missing  # tied
    assert not unexpected, unexpected
    model.tie_weights()
    return model.eval(), AutoTokenizer.from_pretrained(path)


if __name__ == "__main__":
    foveate.train.run.build_model = lambda *args: with_convolutions(build_model(*args))
    foveate.loading.decoding.load_for_decoding = load_with_convolutions
    sys.exit(main(sys.argv[1:]))
