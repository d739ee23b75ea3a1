"""A model as a new folder, for others to load."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.errors import FoveateError
from foveate.files import is_disk_full, replacing_folder
from foveate.loading import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def check_new(out: Path) -> None:
    """Raise a ``FoveateError`` if there is something at ``out``: said before the work."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FoveateError(f"--out: {out} exists; choose a new folder")


def save_new(out: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, card: str | None = None) -> None:
    """Write a model and its tokenizer to the new folder ``out``, which appears only once it is whole.

    Args:
        card: the text of its README.md; None: it has none.

    Raises:
        FoveateError: ``out`` exists by now, or the disk is full.
    """
    try:
        with replacing_folder(out) as beside, quiet_transformers():
            model.save_pretrained(beside)
            tokenizer.save_pretrained(beside)
            if card is not None:
                (beside / "README.md").write_text(card, encoding="utf-8")
    except Exception as error:
        if is_disk_full(error):
            raise FoveateError(f"--out: no space left for {out}; free some or write elsewhere") from None
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another process was faster
            raise FoveateError(f"--out: {out} exists; choose a new folder") from None
        raise
