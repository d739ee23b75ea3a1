"""How a model is spread over processes: a copy on each (DDP), or a part of every weight on each (FSDP2).

A checkpoint is the same either way: whole weights and whole optimizer state, gathered when it is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from foveate.train.distributed import World


def copy_to_all(model: Any, world: World, context: int) -> Any:
    """What to call for ``model`` so that the gradients of its copies are averaged over all processes.

    DDP waits for a gradient of every parameter, or searches the graph of each step for those that get none, such as
    those of levels beyond ``context`` tokens. They are the same for all sequences of that length, so one is asked.
    """
    if world.size == 1 or is_sharded(model):
        return model
    ids_BT = torch.zeros(1, context, dtype=torch.long, device=model.device)
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        model(input_ids=ids_BT, labels=ids_BT, use_cache=False).loss.backward()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.grad is not None)
    model.zero_grad(set_to_none=True)
    return DistributedDataParallel(
        model,
        device_ids=[model.device.index] if model.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
    )


def gathering(forward: Any, last: bool) -> contextlib.AbstractContextManager[Any]:
    """For a part of a step: only with the last one do copies exchange their gradients."""
    if isinstance(forward, DistributedDataParallel) and not last:
        return forward.no_sync()
    return contextlib.nullcontext()


def shard(model: nn.Module, world: World, device: torch.device) -> nn.Module:
    """``model``, changed in place: every process keeps a part of each weight, and has whole only the layer at work."""
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world.size,))
    for block in _blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The innermost members of lists of modules: layers, and the moves between levels."""
    for listed in model.modules():
        if isinstance(listed, nn.ModuleList):
            for member in listed:
                has_list = any(isinstance(module, nn.ModuleList) for module in member.modules())
                if not has_list and any(True for _ in member.parameters()):
                    yield member


def is_sharded(model: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def is_finite(model: nn.Module) -> bool:
    """Whether all that this process has of the weights are numbers."""
    mine = (weight.to_local() if isinstance(weight, DTensor) else weight for weight in model.parameters())
    return all(bool(torch.isfinite(weight).all()) for weight in mine)


def whole(value: Any) -> Any:
    """A sharded tensor gathered; anything else as it is. Every process must ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_weights(model: nn.Module) -> dict[str, Tensor] | None:
    """Weights and saved buffers by name, a tied one once; None where they are whole as they are."""
    if not is_sharded(model):
        return None
    persistent = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return {name: whole(value.detach()).cpu() for name, value in (*model.named_parameters(), *buffers.items())}


def whole_optimizer_state(optimizer: Any) -> dict[str, Any]:
    """An optimizer's ``state_dict`` with every tensor whole."""
    state = optimizer.state_dict()
    slots = {
        index: {slot: whole(value).cpu() for slot, value in values.items()} for index, values in state["state"].items()
    }
    return {**state, "state": slots}


def like(parameter: Tensor, value: Tensor) -> Tensor:
    """A whole tensor, sharded as ``parameter`` is if it has its shape."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    # no process needs another's: each has read all of it
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
