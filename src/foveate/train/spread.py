"""How a model is spread over processes: a copy on each (DDP), or a part of every weight on each (FSDP2).

A checkpoint is the same either way: whole weights and whole optimizer state, gathered when it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from foveate.train.distributed import World


def copy_to_all(model: nn.Module, world: World, unreached: list[str]) -> nn.Module:
    """``model`` with its gradients averaged over all processes.

    ``unreached`` names parameters that no gradient ever arrives at: DDP would wait for them, or search the graph of
    every step to find that out.
    """
    device = next(model.parameters()).device
    constants = [name for name, _ in model.named_buffers()]  # or they would be sent around at every step
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, unreached + constants)
    return DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
    )


def find_unreached(model: Any, context: int) -> list[str]:
    """Parameters that training on ``context`` tokens gives no gradient, such as those of levels beyond them.

    They are the same for all sequences of that length, so one is asked.
    """
    ids_BT = torch.zeros(1, context, dtype=torch.long, device=model.device)
    model(input_ids=ids_BT, labels=ids_BT, use_cache=False).loss.backward()
    names = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    model.zero_grad(set_to_none=True)
    return names


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


def whole(value: Any) -> Any:
    """A sharded tensor gathered on the CPU; anything else as it is. Every process must ask."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights and saved buffers by name, a tied one once."""
    persistent = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return {name: whole(value.detach()) for name, value in (*model.named_parameters(), *buffers.items())}


def whole_optimizer_state(optimizer: Any) -> dict[str, Any]:
    """An optimizer's ``state_dict`` with every tensor whole."""
    state = optimizer.state_dict()
    slots = {index: {slot: whole(value) for slot, value in values.items()} for index, values in state["state"].items()}
    return {**state, "state": slots}


def like(parameter: Tensor, value: Tensor) -> Tensor:
    """A whole tensor, sharded as ``parameter`` is if it has its shape."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    # no process needs another's: each has read all of it
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
