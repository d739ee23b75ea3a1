"""A conversion as a folder like any other: weights, tokenizer, settings of generation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from foveate.converting.conversion import build
from foveate.converting.families import read_source
from foveate.data.reading import say
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
    note: Callable[[str], Any] = say,
) -> FoveateForCausalLM:
    """Convert the model at ``source`` into the new folder ``out``, which appears only once it is whole.

    Args:
        note: told in a line if the result equals the source for texts of some length alone.

    Raises:
        FoveateError: as ``foveate.load`` and ``convert``; ``out`` exists, or the disk is full.
    """
    out = Path(out).expanduser()
    check_new(out)
    model, tokenizer = load(source, device="cpu", dtype=dtype)
    read = read_source(model, context)
    made = build(model, read, walk, pooling=pooling, expanding=expanding)
    if read.exact_to is not None:
        note(f"rotary positions of {source} change with the length of a text: as there up to {read.exact_to:,} tokens")
    save_new(out, made, tokenizer)
    return made
