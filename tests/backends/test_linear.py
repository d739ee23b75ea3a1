"""fp32 products through oneDNN against those of torch."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from foveate.backends import cpu
from foveate.backends.cpu.linear import is_for_onednn, onednn_product
from foveate.backends.cpu.packing import PackedLinear, pack


def fast(inputs: int, outputs: int) -> nn.Linear:
    layer = cpu.accelerate(nn.Linear(inputs, outputs, bias=False))
    assert type(layer) is nn.Linear
    return layer


WIDE = torch.randn(3, 7, 24)
SHAPES = [(2, 24), (5, 24), (3, 7, 24), (1, 2, 24), (2, 0, 24), (1, 1, 24)]


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_are_those_of_torchs_linear(shape: tuple[int, ...], by_columns: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = fast(24, 40), nn.Linear(24, 40, bias=False)
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
    assert not fast(24, 40)(WIDE)._is_view()


def test_only_what_is_needed_is_differentiated() -> None:
    layer = fast(24, 40).requires_grad_(False)
    x = torch.randn(4, 24, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(4, 24), rtol=1e-5, atol=1e-5)


def test_it_is_for_fp32_alone() -> None:
    weight = nn.Parameter(torch.randn(40, 24))
    assert is_for_onednn(torch.randn(2, 24), weight) == torch.backends.mkldnn.is_available()
    assert not is_for_onednn(torch.randn(2, 24, dtype=torch.float64), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_for_onednn(torch.randn(2, 24), weight)


def test_functional_transforms_go_through_torch() -> None:
    layer = fast(24, 40)
    x = torch.randn(5, 3, 24)
    weights = dict(layer.named_parameters())
    each = torch.func.vmap(lambda row: torch.func.functional_call(layer, weights, (row,)).sum(), 0)(x)
    torch.testing.assert_close(each, layer(x).sum((1, 2)), rtol=1e-4, atol=1e-4)


def test_second_derivatives_are_those_of_torchs_linear() -> None:
    torch.manual_seed(0)
    ours, theirs = fast(24, 40), nn.Linear(24, 40, bias=False)
    theirs.load_state_dict(ours.state_dict())
    x, along = torch.randn(7, 24), torch.randn(40, 24)
    products = []
    for layer in (ours, theirs):
        (grad,) = torch.autograd.grad(layer(x).tanh().pow(2).sum(), layer.weight, create_graph=True)
        products.append(torch.autograd.grad((grad * along).sum(), layer.weight)[0])
    torch.testing.assert_close(*products, rtol=1e-4, atol=1e-4)
    assert products[0].abs().max() > 1


def test_one_row_reads_a_copy_by_columns_that_follows_the_weight() -> None:
    layer = fast(24, 40)
    x = torch.randn(1, 24)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(layer(x), x @ layer.weight.t())
            layer.weight.mul_(2)
        assert layer.weight.is_contiguous()
        assert "_by_columns" in layer.__dict__
        layer.weight.data = torch.randn(40, 24)
        torch.testing.assert_close(layer(x), x @ layer.weight.t())
    assert list(layer.state_dict()) == ["weight"]


def test_it_can_be_undone_copied_and_pickled() -> None:
    layer = fast(24, 40)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with torch.no_grad():
            other.weight.zero_()
        assert not other(WIDE).any()
        assert layer(WIDE).any()
    with torch.no_grad():
        layer(WIDE[:1, :1])
    undone = cpu.decelerate(layer)
    assert not {"forward", "_by_columns"} & set(undone.__dict__)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", [cpu.accelerate, pack])
def test_a_layer_with_a_bias_takes_the_same_way_and_keeps_it(way, dtype: torch.dtype, rows: int) -> None:
    model = nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 8, bias=False)).to(dtype)
    x = torch.randn(rows, 24, dtype=dtype)
    with torch.no_grad():
        expected = model(x)
        way(model)
        rounding = 1e-5 if dtype == torch.float32 else 2e-2  # the product is rounded before the bias is added
        torch.testing.assert_close(model(x), expected, rtol=rounding, atol=rounding)
    assert isinstance(model[0], PackedLinear) if way is pack else "forward" in model[0].__dict__


def test_gradients_of_a_bias_are_those_of_torchs_linear() -> None:
    layer, x = nn.Linear(24, 40), torch.randn(3, 24)
    layer(x).square().sum().backward()
    expected = [layer.weight.grad, layer.bias.grad]
    layer.zero_grad()
    cpu.accelerate(layer)(x).square().sum().backward()
    torch.testing.assert_close([layer.weight.grad, layer.bias.grad], expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_a_model_goes_when_it_is_let_go_of() -> None:
    model = nn.Sequential(fast(24, 40))
    weight = weakref.ref(model[0].weight)
    gc.disable()
    try:
        del model
        assert weight() is None
    finally:
        gc.enable()


def test_who_watches_sees_torchs_own_product() -> None:
    layer = fast(24, 40)
    with FlopCounterMode(display=False) as counter:
        layer(WIDE)
    assert counter.get_total_flops() == 2 * 3 * 7 * 24 * 40
