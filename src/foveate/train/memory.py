"""Whether what is asked for fits into memory, told before it is tried.

Linux kills a process that takes more than there is, without a word: the allocation itself has succeeded.
"""

from __future__ import annotations

import torch

from foveate.cost import Load, predict
from foveate.devices import free_memory
from foveate.errors import FoveateError
from foveate.train.settings import TrainSettings


def check_training_memory(
    settings: TrainSettings, vocabulary: int, device: torch.device, *, processes: int = 1
) -> None:
    """Raise a ``FoveateError`` if a process's part of one step is predicted to need more memory than there is.

    The prediction is of tensors alone: what passes may still fail.
    """
    load = Load(
        context=settings.context,
        vocab_size=vocabulary,
        batch=-(-settings.batch // (settings.accumulate * processes)),
        dtype="bfloat16" if settings.dtype == "bf16" else "float32",
    )
    cost = predict(settings.spec, load)
    needed = cost.training_bytes
    if settings.parallel == "fsdp":
        needed -= (needed - cost.total.backward_bytes) * (processes - 1) // processes
    if settings.gradient_checkpointing:
        needed -= sum(level.part.backward_bytes for level in cost.levels)
    free = free_memory(device)
    if needed > free:
        raise FoveateError(
            f"a step would take about {needed / 2**30:,.1f} GiB of memory, of which {free / 2**30:,.1f} GiB are free; "
            f"choose a smaller --batch than {settings.batch}, a larger --accumulate than {settings.accumulate}, "
            f"a shorter --context, or a smaller model"
        )
