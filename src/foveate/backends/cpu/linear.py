"""Linear layers in fp32 on CPUs, with oneDNN, and for one row by columns.

On a CPU that is not Intel's, MKL takes longer over products of two and more rows, forward and backward (``foveate bench
train --dtype fp32 --peer llama`` has Llama compute with it). A product of one row with a weight stored by rows takes a
dot product per output; stored by columns it adds scaled columns, 1.3 to 1.9 times as fast: of weights that decode, a
copy by columns is kept beside them. The layers stay what they are, ``torch.nn.Linear``; only how they compute changes.

Shape legend: N outputs, D inputs.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from foveate.backends.cpu.operators import onednn, product
from foveate.backends.cpu.plain import PLAIN, is_plain

AVAILABLE = torch.backends.mkldnn.is_available()


def accelerate(model: nn.Module) -> nn.Module:
    """Let the linear layers of ``model`` compute in the fast way from now on, wherever it is one."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__dict__["forward"] = _Fast(module)
    return model


def decelerate(model: nn.Module) -> nn.Module:
    """Undo ``accelerate``, and let go of the copies it made."""
    for module in model.modules():
        if isinstance(module.__dict__.get("forward"), _Fast):
            del module.__dict__["forward"]
            module.__dict__.pop("_by_columns", None)
    return model


class _Fast:
    """The forward of one layer. It does not hold the layer, which holds it: models go when they are let go of."""

    def __init__(self, module: nn.Linear) -> None:
        self._module = weakref.ref(module)

    def __call__(self, x: Tensor) -> Tensor:
        module = self._module()
        assert module is not None
        return _forward(module, x)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Fast:
        module = self._module()
        assert module is not None
        return _Fast(memo.get(id(module), module))

    def __reduce__(self) -> tuple[Any, ...]:
        return _Fast, (self._module(),)


def _forward(module: nn.Linear, x: Tensor) -> Tensor:
    weight_ND, bias_N = module.weight, module.bias
    compiling = torch.compiler.is_compiling()
    if not (is_for_operator(x, weight_ND) if compiling else is_for_onednn(x, weight_ND)):
        return linear(x, weight_ND, bias_N)
    if compiling:
        out: Tensor = _CompiledProduct.apply(x, weight_ND)
    elif x.numel() > x.shape[-1]:
        out = _Product.apply(x, weight_ND)
    else:
        return linear(x, weight_ND if torch.is_grad_enabled() else _by_columns(module), bias_N)
    return out if bias_N is None else out + bias_N


def _by_columns(module: nn.Linear) -> Tensor:
    """A copy of the weight that lies by columns, made anew once the weight has changed."""
    weight_ND = module.weight
    now = (weight_ND.data_ptr(), weight_ND._version) if not weight_ND.is_inference() else (weight_ND.data_ptr(), 0)
    kept: tuple[Any, Tensor] | None = module.__dict__.get("_by_columns")
    if kept is None or kept[0] != now:
        with torch.inference_mode(False):
            kept = now, weight_ND.detach().t().contiguous().t()
        module.__dict__["_by_columns"] = kept
    return kept[1]


def is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether ``onednn_product`` can compute ``x @ weight.t()``, and is the faster way."""
    return _is_fast(x, weight) and is_plain(x, weight)


def is_for_operator(x: Tensor, weight: Tensor) -> bool:
    """The same while a compiler looks on. What it exports is plain PyTorch, which other programs know."""
    return (
        _is_fast(x, weight) and type(weight) in PLAIN and not torch.compiler.is_exporting() and x.numel() > x.shape[-1]
    )


def _is_fast(x: Tensor, weight: Tensor) -> bool:
    return (
        AVAILABLE
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


class _Product(torch.autograd.Function):
    """``x @ weight.t()``, differentiable as often as one likes: its backward is made of products like it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_ND: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight_ND)
        return onednn_product(x, weight_ND)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight_ND = ctx.saved_tensors
        grad, grad_x, grad_ND = grads[0], None, None
        product = _Product.apply if torch.is_grad_enabled() else onednn_product
        if ctx.needs_input_grad[0]:
            grad_x = product(grad, weight_ND.t())
        if ctx.needs_input_grad[1]:
            grad_ND = product(grad.flatten(0, -2).t(), x.flatten(0, -2).t())
        return grad_x, grad_ND


class _CompiledProduct(torch.autograd.Function):
    """``_Product`` as a compiler takes it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_ND: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight_ND)
        out: Tensor = product(x, weight_ND)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight_ND = ctx.saved_tensors
        grad, grad_x, grad_ND = grads[0], None, None
        if ctx.needs_input_grad[0]:
            grad_x = product(grad, weight_ND.t())
        if ctx.needs_input_grad[1]:
            grad_ND = product(grad.flatten(0, -2).t(), x.flatten(0, -2).t())
        return grad_x, grad_ND


def onednn_product(x: Tensor, weight_ND: Tensor) -> Tensor:
    """``x @ weight_ND.t()``, [..., N], for fp32 on a CPU."""
    out = onednn(x, weight_ND)
    return torch.ops.aten._unsafe_view(out, out.shape)  # not a view, for which FSDP warns
