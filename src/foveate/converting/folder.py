"""A conversion as a folder like any other: weights, tokenizer, settings of generation."""

from __future__ import annotations

import errno
from pathlib import Path

from foveate.converting.conversion import convert
from foveate.errors import FoveateError
from foveate.files import is_disk_full, replacing_folder
from foveate.hf.modeling_foveate import FoveateForCausalLM
from foveate.loading import load, quiet_transformers


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
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FoveateError(f"--out: {out} exists; choose a new folder")
    model, tokenizer = load(source, device="cpu", dtype=dtype)
    made = convert(model, walk, pooling=pooling, expanding=expanding, context=context)
    try:
        with replacing_folder(out) as beside, quiet_transformers():
            made.save_pretrained(beside)
            tokenizer.save_pretrained(beside)
    except Exception as error:
        if is_disk_full(error):
            raise FoveateError(f"--out: no space left for {out}; free some or write elsewhere") from None
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another process was faster
            raise FoveateError(f"--out: {out} exists; choose a new folder") from None
        raise
    return made
