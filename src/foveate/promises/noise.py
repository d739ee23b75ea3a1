"""How far rounding alone can move what a model computes: the same computation in another order.

Products sum in reverse order, and every result is moved at random within its last digit, as Monte Carlo arithmetic
does. Whatever stays within a few times of what that changes is rounding; a fault is larger, or stays when the
arithmetic gets finer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from foveate.promises.reading import Values

PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm"})
FUSED = frozenset(
    {
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_softmax",
        "_safe_softmax",
        "native_layer_norm",
        "_fused_rms_norm",
        "convolution",
        # and backwards
        "_scaled_dot_product_flash_attention_for_cpu_backward",
        "_scaled_dot_product_flash_attention_backward",
        "_scaled_dot_product_efficient_attention_backward",
        "_scaled_dot_product_cudnn_attention_backward",
        "_softmax_backward_data",
        "_log_softmax_backward_data",
        "native_layer_norm_backward",
        "_fused_rms_norm_backward",
        "convolution_backward",
        "silu_backward",
        "gelu_backward",
    }
)
SUMS = frozenset({"mean", "sum", "cumsum", "_log_softmax"})
POINTWISE = frozenset(
    {"add", "sub", "mul", "div", "rsqrt", "sqrt", "pow", "exp", "log", "silu", "gelu", "tanh", "sigmoid", "softplus"}
)


class OtherOrder(TorchDispatchMode):
    """Within it, tensors are computed in another order, and each result is moved by up to half its last digit.

    Args:
        unit: relative size of the last digit; None: that of each result's own dtype.
        names: which operations' results are moved.
    """

    def __init__(
        self, seed: int, *, unit: float | None = None, names: frozenset[str] = PRODUCTS | FUSED | SUMS | POINTWISE
    ) -> None:
        super().__init__()
        self.seed, self.unit, self.names = seed, unit, names
        self.generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in PRODUCTS:
            *before, left, right = args[: 3 if "add" in name else 2]
            args = (*before, left.flip(-1), right.flip(-2), *args[len(before) + 2 :])
        out = func(*args, **(kwargs or {}))
        if name.rstrip("_") not in self.names and name not in self.names:
            return out
        if name.endswith("_"):
            return out.add_(self._last_digits(out)) if out.is_floating_point() else out
        if not isinstance(out, tuple):
            return self._moved(out)
        several = len(out) if name.endswith(("backward", "backward_data")) else 1  # else what follows are statistics
        return (*map(self._moved, out[:several]), *out[several:])

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
            return value
        return value + self._last_digits(value)

    def _last_digits(self, value: Tensor) -> Tensor:
        if value.device not in self.generators:
            self.generators[value.device] = torch.Generator(value.device).manual_seed(self.seed)
        unit = torch.finfo(value.dtype).eps if self.unit is None else self.unit
        share = torch.rand(value.shape, dtype=value.dtype, device=value.device, generator=self.generators[value.device])
        return (value * (share - 0.5).mul_(unit)).nan_to_num_(0.0, 0.0, 0.0)  # an infinity stays what it is


def noisy(compute: Callable[[], Values], seed: int, **how: Any) -> Values:
    with OtherOrder(seed, **how):
        return compute()
