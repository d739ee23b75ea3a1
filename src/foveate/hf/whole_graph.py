"""Every parameter takes part in every graph, as DistributedDataParallel asks of a model.

A text shorter than a stride leaves that level's layers unused, and one shorter than a fovea its pooling. Which ones
follows from the lengths, which differ between processes, and so each would wait for gradients that others do not send.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def with_every_parameter(x: Tensor, module: nn.Module) -> Tensor:
    """``x``, whose backward pass also reaches the parameters of ``module`` that it does not depend on.

    They get no gradient by it, only the notice: DistributedDataParallel then takes theirs for zero. Done only where
    there are several processes; elsewhere it would be for nothing.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not distributed or not x.requires_grad or torch.compiler.is_compiling():
        return x
    used = _parameters_of(x)
    if used is None:
        return x
    unused = [p for p in module.parameters() if p.requires_grad and id(p) not in used and type(p) is nn.Parameter]
    if not unused:
        return x
    out: Tensor = _Notice.apply(x, *unused)
    return out


class _Notice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.count = len(parameters)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], *(None,) * ctx.count


def _parameters_of(x: Tensor) -> set[int] | None:
    """Identities of the parameters that ``x`` depends on; None if some are hidden in a reentrant checkpoint."""
    found: set[int] = set()
    seen, waiting = set(), [x.grad_fn]
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "CheckpointFunctionBackward":
            return None
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.add(id(variable))
        waiting += [child for child, _ in node.next_functions]
    return found
