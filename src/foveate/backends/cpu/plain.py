"""Whether a call is plain PyTorch: nobody watches or rewrites what is computed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PLAIN = (Tensor, nn.Parameter)


def is_plain(*tensors: Tensor) -> bool:
    """Whether ``tensors`` are ordinary ones, outside compilers, dispatch modes and functorch's transforms."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._are_functorch_transforms_active()
        and all(type(tensor) in PLAIN for tensor in tensors)
    )
