"""Linear layers that compute in fp32 on CPUs with oneDNN, which torch leaves to its BLAS.

On a CPU that is not Intel's, MKL takes longer over products of two and more rows, forward and backward (``foveate bench
train --dtype fp32 --peer llama`` has Llama compute with it).

Shape legend: N outputs, D inputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Linear(nn.Linear):
    """A linear layer without bias; weight, name and gradients are those of ``torch.nn.Linear``.

    One that ends a residual branch says in ``depth`` how many layers add to the same stream; by that it is initialised.
    """

    depth: int | None = None

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not is_for_onednn(x, self.weight):
            return super().forward(x)
        out: Tensor = _Product.apply(x, self.weight)
        return out


def is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether ``onednn_product`` can compute ``x @ weight.t()``, and is the faster way."""
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel() > x.shape[-1]  # two rows or more
        and type(x) in (Tensor, nn.Parameter)
        and type(weight) in (Tensor, nn.Parameter)
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_ND: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight_ND)
        return onednn_product(x, weight_ND)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight_ND = ctx.saved_tensors
        grad, grad_x, grad_ND = grads[0], None, None
        if ctx.needs_input_grad[0]:
            grad_x = onednn_product(grad, weight_ND.t())
        if ctx.needs_input_grad[1]:
            grad_ND = onednn_product(grad.flatten(0, -2).t(), x.flatten(0, -2).t())
        return grad_x, grad_ND


def onednn_product(x: Tensor, weight_ND: Tensor) -> Tensor:
    """``x @ weight_ND.t()``, [..., N], for fp32 on a CPU."""
    out = torch.ops.mkldnn._linear_pointwise.default(x, weight_ND, None, "none", [], "")
    return torch.ops.aten._unsafe_view(out, out.shape)  # not a view, for which FSDP warns
