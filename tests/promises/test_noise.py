"""What rounding does, measured: nothing to what is exact, the right size to what is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foveate.promises.noise import OtherOrder


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_product_moves_by_its_rounding(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(64, 64, dtype=torch.float64, generator=generator).to(dtype) for _ in range(2))
    with OtherOrder(1):
        moved = a @ b
    exact = a.double() @ b.double()
    far = (moved.double() - exact).abs().max() / exact.abs().max()
    eps = torch.finfo(dtype).eps
    assert 0.1 * eps < far < 20 * eps


def test_whole_numbers_views_and_infinities_stay() -> None:
    with OtherOrder(1):
        assert torch.equal(torch.arange(9) * 3 + 1, torch.arange(1, 28, 3))
        x = torch.randn(4, 4)
        assert torch.equal(x.T.T, x)
        masked = torch.zeros(3) + torch.tensor([0.0, -torch.inf, torch.inf])
    assert masked.tolist() == [0.0, -torch.inf, torch.inf]


def test_gradients_flow_through_and_move() -> None:
    layer, x = nn.Linear(8, 8), torch.randn(5, 8)
    plain = torch.autograd.grad(layer(x).sin().sum(), layer.weight)[0]
    with OtherOrder(1):
        moved = torch.autograd.grad(layer(x).sin().sum(), layer.weight)[0]
    assert 0 < (plain - moved).abs().max() < 1e-5


def test_seeds_differ() -> None:
    x = torch.randn(50, 50)
    found = []
    for seed in (1, 1, 2):
        with OtherOrder(seed):
            found.append(x @ x)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
