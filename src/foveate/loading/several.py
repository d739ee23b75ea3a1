"""Loading models to be held against one another, each under a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.errors import FoveateError
from foveate.loading import load, quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Named:
    """A model, its tokenizer, where they are from, and what to call them."""

    name: str
    path: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_several(paths: Sequence[str | Path], *, device: str = "auto") -> list[Named]:
    """Load every model, in fp32, under the shortest names that tell them apart.

    Raises:
        FoveateError: one is named twice, is missing or is damaged.
    """
    folders = [Path(path).expanduser() for path in paths]
    for folder in folders:
        if sum(other.resolve() == folder.resolve() for other in folders) > 1:
            raise FoveateError(f"{folder} is named twice; name each model once")
    loaded = []
    for name, folder in zip(short_names(folders), folders, strict=True):
        with quiet_transformers():
            model, tokenizer = load(folder, device=device)
        loaded.append(Named(name=name, path=folder, model=model, tokenizer=tokenizer))
    return loaded


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as make all of them differ."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names
