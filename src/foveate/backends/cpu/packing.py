"""How weights lie in memory when tokens are decoded on a CPU, one or a few at a time.

Shape legend: N outputs, D inputs.

Reading the weights is most of the time there, and how fast they are read depends on their order. In fp32 a product of
one row with a weight stored by rows takes a dot product per output; stored by columns it adds scaled columns, 1.3 to
1.9 times as fast. In the blocked order that oneDNN packs them in, large ones are read faster still, by all threads, and
a product with several rows takes half of the time or less. In bf16 that order is read about twice as fast as
rows. (Measured on an AMD EPYC; on Intel's CPUs MKL, which computes what is not packed, does better.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from foveate.backends.cpu.linear import accelerate
from foveate.backends.cpu.operators import number_of, onednn, packed_product
from foveate.errors import FoveateError

SMALL = 1 << 19  # weights: so few are read by columns in less time than a call of oneDNN takes to begin
FEW_ROWS = 16  # from more rows on, an int8 weight is turned into bf16 first


@torch.no_grad()
def pack(model: nn.Module, weights: str | None = None) -> None:
    """Make ``model`` ready to decode on a CPU, in place and for good: packed weights cannot be trained, moved or saved.

    In fp32 and bf16 they are packed as oneDNN reads them; small ones in fp32 are there by columns, too.

    Args:
        weights: ``int8``: weights of bf16 models are rounded to 8 bits with a scale for each output, which halves them.

    Raises:
        FoveateError: another kind of weights; int8 on a GPU or in fp32.
    """
    parameter = next(model.parameters())
    if weights not in (None, "int8"):
        raise FoveateError(f"weights {weights!r} are unknown; write int8 or leave it out")
    if weights is not None and not (parameter.is_cpu and parameter.dtype == torch.bfloat16):
        kind = f"{str(parameter.dtype).removeprefix('torch.')} on {parameter.device.type}"
        raise FoveateError(
            f"weights {weights} are for bf16 models on a CPU, and this one is in {kind}; use --dtype bf16"
        )
    if parameter.is_cpu and parameter.dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.is_available():
        packed: type[PackedLinear] = Int8Linear if weights else PackedLinear
        for module in list(model.modules()):
            for name, child in module.named_children():
                if type(child) is nn.Linear:
                    setattr(module, name, packed(child))
    accelerate(model)


class PackedLinear(nn.Module):
    """A linear layer whose weight is stored as oneDNN reads it; where it is small, for one row by columns."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight_ND = layer.weight.detach()
        self._bias_N = None if layer.bias is None else layer.bias.detach()
        self._itemsize = weight_ND.itemsize
        self._by_columns_ND: Tensor | None = None
        if weight_ND.dtype == torch.float32 and weight_ND.numel() < SMALL:
            self._by_columns_ND = weight_ND.t().contiguous().t()
        self._pack(weight_ND)
        self._number = number_of(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._number = number_of(self)

    def _pack(self, weight_ND: Tensor) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_ND.contiguous())

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"

    @property
    def nbytes(self) -> int:
        copies = 1 if self._by_columns_ND is None else 2
        return copies * self.in_features * self.out_features * self._itemsize

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            out: Tensor = packed_product(x, self._number, self.out_features)
        else:
            out = self.product(x)
        return out if self._bias_N is None else out + self._bias_N

    def product(self, x: Tensor) -> Tensor:
        """What comes before the bias is added."""
        if self._by_columns_ND is not None and x.numel() == self.in_features:
            return linear(x, self._by_columns_ND)
        if not x.numel():
            return x.new_empty(*x.shape[:-1], self.out_features)
        return onednn(x, self._packed)

    def _save_to_state_dict(self, *args: Any) -> None:
        raise FoveateError("weights packed for decoding cannot be saved or trained; load the model again")

    def _apply(self, *args: Any, **kwargs: Any) -> PackedLinear:
        raise FoveateError("weights packed for decoding cannot be moved or converted; load the model again")


class Int8Linear(PackedLinear):
    """A linear layer whose weight is rounded to 8 bits, with a scale for each output."""

    def _pack(self, weight_ND: Tensor) -> None:
        largest_N1 = weight_ND.float().abs().amax(1, keepdim=True).clamp_(min=1e-12)
        self._scale_N = (largest_N1[:, 0] / 127).to(weight_ND.dtype)
        self._weight_ND = (weight_ND.float() / self._scale_N.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8)

    @property
    def nbytes(self) -> int:
        return self._weight_ND.nbytes + self._scale_N.nbytes

    def product(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        if len(rows) > FEW_ROWS:
            return linear(x, self._weight_ND.to(x.dtype) * self._scale_N[:, None])
        return torch._weight_int8pack_mm(rows, self._weight_ND, self._scale_N).view(*x.shape[:-1], self.out_features)
