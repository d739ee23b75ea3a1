from functools import partial

import pytest
import torch

from contracts.walks import WALKS, small
from foveate.model.decoder import Decoder
from foveate.model.init import SELF_LOGIT, branch_std, init_weights


def initialised(walk: str, **shape: object) -> Decoder:
    torch.manual_seed(0)
    decoder = Decoder(small(walk, **shape))
    decoder.apply(lambda module: init_weights(module, 0.02))
    return decoder


@pytest.mark.parametrize("expanding", ["repeat", "linear", "attention"])
@pytest.mark.parametrize("pooling", ["mean", "linear", "attention"])
def test_a_fresh_hierarchy_is_its_fine_layers(pooling: str, expanding: str) -> None:
    deep = initialised("1@1 1@4 2@8 1@1", pooling=pooling, expanding=expanding)
    fine = Decoder(small("2@1"))
    fine.steps[0].layers[0].load_state_dict(deep.steps[0].layers[0].state_dict())
    fine.steps[0].layers[1].load_state_dict(deep.steps[-1].layers[0].state_dict())
    x_BTD = torch.randn(2, 19, 8)
    assert torch.equal(deep(x_BTD), fine(x_BTD))


def test_a_fresh_stream_keeps_its_scale_at_any_depth() -> None:
    x_BTD = torch.randn(2, 16, 32)
    growth = []
    for layers in (2, 32):
        decoder = initialised(f"{layers}@1", width=32, heads=2, feed_forward=64)
        decoder.norm = torch.nn.Identity()
        with torch.no_grad():
            growth.append((decoder(x_BTD) - x_BTD).std().item())
    assert 0.5 < growth[1] / growth[0] < 2


@pytest.mark.parametrize(("width", "std"), [(128, SELF_LOGIT / 128), (1024, 0.02)])
def test_embeddings_of_narrow_models_start_larger(width: int, std: float) -> None:
    embedding = torch.nn.Embedding(1000, width)
    init_weights(embedding, 0.02)
    assert embedding.weight.std().item() == pytest.approx(std, rel=0.02)


def test_every_parameter_is_initialised() -> None:
    for spec in WALKS.values():
        decoder = Decoder(spec)
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.fill_(torch.nan)
        decoder.apply(partial(init_weights, std=0.02))
        assert all(parameter.isfinite().all() for parameter in decoder.parameters())


@pytest.mark.parametrize(("width", "depth", "std"), [(128, 8, 1 / 32), (4096, 32, 0.02 / 8), (16384, 32, 0.02 / 8)])
def test_branches_of_narrow_models_start_larger(width: int, depth: int, std: float) -> None:
    assert branch_std(0.02, width, depth) == pytest.approx(std, rel=0.15)
