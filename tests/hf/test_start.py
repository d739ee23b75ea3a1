"""How a model starts: transformers initialises module by module, and passes over those of ours without parameters."""

import pytest
import torch

from foveate import FoveateConfig, FoveateForCausalLM
from foveate.model.decoder import Decoder
from foveate.model.init import init_weights
from foveate.model.layers import Layer


@pytest.mark.parametrize("resampling", ["mean", "linear", "attention"])
def test_every_part_starts_as_in_the_core(resampling: str) -> None:
    torch.manual_seed(0)
    expanding = "repeat" if resampling == "mean" else resampling
    config = FoveateConfig(
        walk="1@1 2@4 3@8:window4 2@4 1@1:fovea8", vocab_size=50, hidden_size=64, num_attention_heads=4,
        intermediate_size=96, pooling=resampling, expanding=expanding,
    )  # fmt: skip
    started = dict(FoveateForCausalLM(config).model.decoder.named_parameters())
    core = Decoder(config.spec)
    core.apply(lambda module: init_weights(module, config.initializer_range))
    for name, parameter in core.named_parameters():
        scale = parameter.detach().square().mean().sqrt().item()
        assert started[name].detach().square().mean().sqrt().item() == pytest.approx(scale, rel=0.1), name


def test_branches_start_by_the_layers_of_their_level() -> None:
    torch.manual_seed(0)
    model = FoveateForCausalLM(
        FoveateConfig(walk="1@1 2@4 16@8 2@4 1@1", vocab_size=50, hidden_size=64, num_attention_heads=4)
    )
    layers = [module for module in model.modules() if isinstance(module, Layer)]
    assert len(layers) == 22
    for layer, depth in zip(layers, [2, 4, 4, *[16] * 16, 4, 4, 2], strict=True):
        for branch in (layer.o_proj, layer.down_proj):
            assert branch.weight.std().item() == pytest.approx((64 * depth) ** -0.5, rel=0.1)
