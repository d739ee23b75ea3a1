from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from contracts.checks import make_decoder, make_rows
from contracts.walks import WALKS, whole_length
from foveate.model.decoder import Decoder
from foveate.model.layers import Stack


def gradients(decoder: Decoder) -> list[torch.Tensor]:
    decoder.zero_grad()
    decoder(torch.stack(make_rows(decoder, [21, 21]))).square().sum().backward()
    return [parameter.grad for parameter in decoder.parameters()]


@pytest.mark.parametrize("name", ["nested", "windows", "fovea"])
def test_gradient_checkpointing_changes_no_gradient(name: str) -> None:
    decoder = make_decoder(WALKS[name])
    plain = gradients(decoder)
    calls = []

    def checkpointing(function: object, *args: object) -> torch.Tensor:
        calls.append(function)
        return partial(checkpoint, use_reentrant=False)(function, *args)

    for step in decoder.steps:
        if isinstance(step, Stack):
            step.gradient_checkpointing, step._gradient_checkpointing_func = True, checkpointing
    for actual, expected in zip(gradients(decoder), plain, strict=True):
        torch.testing.assert_close(actual, expected)
    assert len(calls) == decoder.spec.n_layers
    decoder.eval()
    gradients(decoder)
    assert len(calls) == decoder.spec.n_layers, "only training pays for it"


@pytest.mark.parametrize("name", ["nested", "windows", "fovea", "attention_attention"])
def test_autocast_trains_and_decodes(name: str) -> None:
    decoder = make_decoder(WALKS[name], dtype=torch.float32)
    x_BTD = torch.stack(make_rows(decoder, [whole_length(decoder.spec)] * 2))
    exact = decoder(x_BTD)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained = decoder(x_BTD)
        trained.float().square().sum().backward()
        with torch.no_grad():
            cache = decoder.make_cache(2)
            decoded = torch.cat([decoder(part, cache) for part in (x_BTD[:, :9], *x_BTD[:, 9:].split(1, 1))], 1)
    assert all(parameter.grad.isfinite().all() for parameter in decoder.parameters())
    for out in (trained, decoded):
        assert (out.float() - exact).square().mean().sqrt() < 0.1
