"""Loading a model to use it, not to train or save it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foveate.loading import load

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKED = ("foveate", "llama")  # kinds of models known to do nothing with a weight but multiply by it


def load_for_decoding(
    path: str | Path, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As ``load``, with weights in the order that a CPU reads fastest: these cannot be trained, moved or saved.

    Args:
        dtype: also ``int8``, on a CPU: weights of 8 bits with a scale for each output, everything else in bf16.

    Raises:
        FoveateError: as ``load``; int8 on a GPU.
    """
    from foveate.backends.cpu.packing import pack

    rounded = dtype == "int8"
    model, tokenizer = load(path, device=device, dtype="bf16" if rounded else dtype)
    if rounded or model.config.model_type in PACKED:
        pack(model, "int8" if rounded else None)
    return model, tokenizer
