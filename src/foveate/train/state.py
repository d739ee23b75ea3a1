"""What a run needs besides its weights to go on as if nothing had happened, in safetensors and JSON: never pickle."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

OPTIMIZER_FILE = "optimizer.safetensors"
PROCESS_FILE = "process.safetensors"  # of rank 0: all processes draw the same random numbers


def save_optimizer(path: Path, state: Mapping[str, Any]) -> None:
    """Write an optimizer's ``state_dict``."""
    tensors = {f"{index}.{slot}": value for index, slots in state["state"].items() for slot, value in slots.items()}
    assert all(isinstance(value, Tensor) for value in tensors.values())
    _write(path, tensors, {"param_groups": state["param_groups"]})


def load_optimizer(path: Path, optimizer: Any, *, place: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Restore the tensors that ``save_optimizer`` wrote; rates and the like stay those of the optimizer given.

    ``place`` is called with each parameter and each of its tensors, and gives the tensor as this process keeps it.
    """
    tensors, _ = _read(path)
    slots: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, value in tensors.items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = place(parameters[int(index)], value)
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def save_process(path: Path, notes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write the random states of this process, and its own ``notes`` and ``tensors``."""
    version, internal, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    states = {"rng.torch": torch.get_rng_state(), "rng.numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    if torch.cuda.is_available():
        states["rng.cuda"] = torch.cuda.get_rng_state()
    known = {"python": [version, internal, gauss], "numpy": [name, *rest]}
    _write(path, {**states, **tensors}, {"rng": known, "notes": dict(notes)})


def read_process(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The notes and tensors that were saved with the random states."""
    tensors, saved = _read(path)
    return saved["notes"], {name: value for name, value in tensors.items() if not name.startswith("rng.")}


def restore_random_states(path: Path) -> None:
    """Set the random generators of this process to where they were when ``path`` was saved."""
    tensors, saved = _read(path)
    version, internal, gauss = saved["rng"]["python"]
    random.setstate((version, tuple(internal), gauss))
    name, *rest = saved["rng"]["numpy"]
    np.random.set_state((name, tensors["rng.numpy"].numpy().astype(np.uint32), *rest))
    torch.set_rng_state(tensors["rng.torch"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])


def _write(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, {"json": json.dumps(notes)})


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["json"])  # noqa: SIM118
