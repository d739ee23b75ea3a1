"""Whether a folder's weights are whole safetensors files, told from their headers without reading them."""

from __future__ import annotations

import json
from pathlib import Path

from foveate.errors import FoveateError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
MAX_HEADER = 100_000_000  # what the safetensors library itself allows


def check_weights(folder: Path) -> None:
    """Raise a ``FoveateError`` that names the file unless the folder has all its weights as safetensors."""
    if (folder / INDEX).exists():
        names = _shards(folder / INDEX)
    elif (folder / WEIGHTS).exists():
        names = [WEIGHTS]
    else:
        pickled = next((path.name for pattern in PICKLED for path in sorted(folder.glob(pattern))), None)
        if pickled:
            raise FoveateError(
                f"{folder} has its weights pickled, in {pickled}, which could run any code; convert it to safetensors "
                f"with save_pretrained() where you trust it"
            )
        raise FoveateError(f"the model {folder} is damaged: {WEIGHTS} is missing")
    for name in names:
        damage = _damage(folder / name)
        if damage is not None:
            raise FoveateError(f"the model {folder} is damaged: {name} {damage}")


def _shards(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise FoveateError(f"{index} is damaged: it does not list the files of the weights") from None
    if any(Path(name).name != name for name in names):
        raise FoveateError(f"{index} names files outside of its folder")
    return names


def _damage(path: Path) -> str | None:
    if not path.exists():
        return "is missing"
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            return f"is cut short or not safetensors ({size:,} bytes)"
        try:
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError):
            return "has a damaged header"
    if size != 8 + length + end:
        return f"has {size:,} bytes instead of {8 + length + end:,}"
    return None
