"""A conversion as a folder like any other: weights, tokenizer, settings of generation."""

from __future__ import annotations

from pathlib import Path

from foveate.converting.conversion import convert
from foveate.hf.modeling_foveate import FoveateForCausalLM
from foveate.loading import load
from foveate.loading.saving import check_new, save_new


def convert_folder(
    source: str | Path,
    out: str | Path,
    *,
    walk: str | None = None,
    pooling: str = "mean",
    expanding: str = "repeat",
    dtype: str = "fp32",
    context: int | None = None,
) -> FoveateForCausalLM:
    """Convert the model at ``source`` into the new folder ``out``, which appears only once it is whole.

    Raises:
        FoveateError: as ``foveate.load`` and ``convert``; ``out`` exists, or the disk is full.
    """
    out = Path(out).expanduser()
    check_new(out)
    model, tokenizer = load(source, device="cpu", dtype=dtype)
    made = convert(model, walk, pooling=pooling, expanding=expanding, context=context)
    save_new(out, made, tokenizer)
    return made
