"""A bound on what a configuration can make transformers build, taken from the files of the weights."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn
from torch.nn.modules import module as registration

from foveate.errors import FoveateError
from foveate.limits import free_memory
from foveate.loading.weights import Weights

# A tied head is built before it is tied, experts one by one before they are joined, and a few parameters are computed.
TIMES, SPARE_ELEMENTS, SPARE_TENSORS = 2, 1 << 20, 1_000
TENSORS_SPLIT = 8
LEAST_BITS = 1  # of a quantised parameter


@contextlib.contextmanager
def bounded(path: Path, weights: Weights, *, quantized: bool = False) -> Iterator[None]:
    """Within it, a model built on the meta device is refused as soon as it is larger than its weights, or than memory.

    Transformers builds a model of whatever size its configuration names, and only then looks into the files: layers
    without number take time and memory even where their parameters take none, and missing ones are then made.

    Raises:
        FoveateError: more is built than the files hold, or would fit into the memory that is free.
    """
    held = weights.size * 8 // LEAST_BITS if quantized else weights.elements
    most_elements, most_tensors = TIMES * held + SPARE_ELEMENTS, TENSORS_SPLIT * weights.tensors + SPARE_TENSORS
    free, here = free_memory(), threading.get_ident()
    seen: dict[int, Tensor] = {}  # by identity; holding them keeps identities apart
    total = {"elements": 0, "bytes": 0}

    def count(tensor: Tensor | None, *, is_parameter: bool) -> None:
        if tensor is None or not tensor.is_meta or threading.get_ident() != here or id(tensor) in seen:
            return
        seen[id(tensor)] = tensor
        total["elements"] += tensor.numel() * is_parameter
        total["bytes"] += tensor.numel() * tensor.element_size()
        if total["elements"] > most_elements or len(seen) > most_tensors:
            raise FoveateError(
                f"the model {path} is damaged: its configuration asks for more parameters than the "
                f"{weights.tensors:,} tensors of its weights hold"
            )
        if total["bytes"] > free and not quantized:
            raise FoveateError(
                f"the model {path} takes over {free / 2**30:,.1f} GiB of memory, all that is free; "
                f"choose a smaller dtype, such as bf16, or a larger machine"
            )

    def count_parameter(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        count(tensor, is_parameter=True)

    def count_buffer(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        count(tensor, is_parameter=False)

    hooks = [
        registration.register_module_parameter_registration_hook(count_parameter),
        registration.register_module_buffer_registration_hook(count_buffer),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
