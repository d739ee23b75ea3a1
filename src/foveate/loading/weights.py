"""Whether a folder's weights are whole safetensors files, told from their headers without reading them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError, first_line, shown
from foveate.limits import check_regular, read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
PARTS_OF_PROCESSES = "shard-*-model-*.safetensors"
LEAST_GGUF_ENTRY = 13  # bytes: the length of a name, a type, a value
MAX_HEADER = 100_000_000  # what the safetensors library itself allows


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How much the files of a model's weights hold."""

    tensors: int
    elements: int
    size: int  # bytes


def check_weights(folder: Path) -> Weights:
    """Raise a ``FoveateError`` that names the file unless the folder has all its weights as safetensors."""
    for path in sorted(folder.iterdir()):
        check_regular(path)
    check_redirections(folder)
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
    files = [_read(folder, name) for name in names]
    return Weights(
        tensors=sum(file.tensors for file in files),
        elements=sum(file.elements for file in files),
        size=sum(file.size for file in files),
    )


def check_redirections(folder: Path) -> None:
    """Refuse files that would make transformers load other weights than the folder's own, some of them pickled."""
    if (folder / ADAPTER).exists():
        raise FoveateError(f"{folder} holds an adapter ({ADAPTER}); merge it into its model, and save that")
    part = next(folder.glob(PARTS_OF_PROCESSES), None)
    if part is not None:
        raise FoveateError(f"{folder} holds the parts of several processes, such as {part.name}; join them into one")


def check_values(model: Any, place: Path) -> None:
    """Raise a ``FoveateError`` that names the first parameter with values that are no finite numbers."""
    import torch

    for name, parameter in model.named_parameters():
        if parameter.dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64) and parameter.numel():
            low, high = (float(value) for value in parameter.detach().aminmax())  # either is NaN where any value is
            if not (math.isfinite(low) and math.isfinite(high)):
                what = "NaN" if math.isnan(low) or math.isnan(high) else "infinite values"
                raise FoveateError(
                    f"the model {place} is damaged: its weight {name} holds {what}; fetch or save it again"
                )


def check_gguf(path: Path) -> Weights:
    """How much a GGUF file holds, by its size: each parameter takes a bit at least.

    Raises:
        FoveateError: it is missing, or its first bytes are not those of a GGUF file of this size.
    """
    if not path.is_file():
        raise FoveateError(f"there is no model at {path}: no such file")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(24)
    tensors, settings = (int.from_bytes(start[at : at + 8], "little") for at in (8, 16))
    if not start.startswith(b"GGUF") or LEAST_GGUF_ENTRY * (tensors + settings) > size:
        raise FoveateError(f"{path} is cut short or not GGUF ({size:,} bytes)")
    return Weights(tensors=tensors, elements=8 * size, size=size)


def _shards(index: Path) -> list[str]:
    try:
        names = set(read_json(index)["weight_map"].values())
    except (KeyError, TypeError, AttributeError):
        raise FoveateError(f"{index} is damaged: it does not list the files of the weights") from None
    for name in names:
        if not isinstance(name, str) or not name.endswith(".safetensors"):
            raise FoveateError(f"{index} names {shown(name)}, which is no safetensors file")
        if Path(name).name != name:
            raise FoveateError(f"{index} names files outside of its folder")
    return sorted(names)


def _read(folder: Path, name: str) -> Weights:
    path = folder / name

    def damaged(how: str) -> FoveateError:
        return FoveateError(f"the model {folder} is damaged: {name} {how}")

    if not path.is_file():
        raise damaged("is missing")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise damaged(f"is cut short or not safetensors ({size:,} bytes)")
        raw = file.read(length)
    try:
        entries = [entry for name, entry in json.loads(raw).items() if name != "__metadata__"]
        ends = [entry["data_offsets"][1] for entry in entries]
        elements = sum(map(_elements, entries))
        whole = 8 + length + max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise damaged("has a damaged header") from None
    if size != whole:
        raise damaged(f"has {size:,} bytes instead of {whole:,}")
    _check_with_library(path, damaged)
    return Weights(tensors=len(entries), elements=elements, size=size)


def _elements(entry: Any) -> int:
    """By the bytes, which are there: a shape may say anything."""
    start, end = entry["data_offsets"]
    bits = re.search("[0-9]+", entry["dtype"])  # F32, BF16, F8_E4M3, BOOL
    return (end - start) * 8 // int(bits[0] if bits else 8)


def _check_with_library(path: Path, damaged: Any) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):  # checks that shapes fit the bytes, without gaps or overlaps
            pass
    except (SafetensorError, OSError) as error:
        raise damaged(f"has a damaged header: {first_line(error)}") from None
