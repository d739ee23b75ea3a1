"""fp32 products through oneDNN against those of torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foveate.model.linear import Linear, is_for_onednn, onednn_product

WIDE = torch.randn(3, 7, 24)
SHAPES = [(2, 24), (5, 24), (3, 7, 24), (1, 2, 24), (2, 0, 24), (1, 1, 24)]


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_are_those_of_torchs_linear(shape: tuple[int, ...], by_columns: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = Linear(24, 40), nn.Linear(24, 40, bias=False)
    theirs.load_state_dict(ours.state_dict())
    if by_columns:
        ours.weight.data = ours.weight.data.t().contiguous().t()
    x = torch.randn(shape)
    results = []
    for layer in (ours, theirs):
        given = x.clone().requires_grad_()
        out = layer(given)
        (out.sin() * torch.linspace(0, 1, 40)).sum().backward()
        results.append((out, given.grad, layer.weight.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("x", [WIDE.transpose(0, 1), WIDE[:, ::2], WIDE[:, :1]])
def test_inputs_may_be_parts_and_transpositions(x: torch.Tensor) -> None:
    weight = torch.randn(40, 24)
    torch.testing.assert_close(onednn_product(x, weight), x @ weight.t(), rtol=1e-5, atol=1e-5)


def test_the_output_is_no_view() -> None:
    assert not Linear(24, 40)(WIDE)._is_view()


def test_only_what_is_needed_is_differentiated() -> None:
    layer = Linear(24, 40).requires_grad_(False)
    x = torch.randn(4, 24, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(4, 24), rtol=1e-5, atol=1e-5)


def test_it_is_for_several_rows_in_fp32_alone() -> None:
    weight = nn.Parameter(torch.randn(40, 24))
    assert is_for_onednn(torch.randn(2, 24), weight) == torch.backends.mkldnn.is_available()
    assert not is_for_onednn(torch.randn(1, 1, 24), weight)
    assert not is_for_onednn(torch.randn(2, 24, dtype=torch.float64), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_for_onednn(torch.randn(2, 24), weight)


def test_functional_transforms_go_through_torch() -> None:
    layer = Linear(24, 40)
    x = torch.randn(5, 3, 24)
    weights = dict(layer.named_parameters())
    each = torch.func.vmap(lambda row: torch.func.functional_call(layer, weights, (row,)).sum(), 0)(x)
    torch.testing.assert_close(each, layer(x).sum((1, 2)), rtol=1e-4, atol=1e-4)
