"""What a file of settings may ask for, checked before any library acts on it: most build what it names at once."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError, shown

MAX_BYTES = 64 << 20
MAX_DEPTH = 64
# Configuration classes make lists as long as a number they are given: labels, or a kind for each layer.
MAX_COUNT = 1 << 20
# What counts nothing, and the sizes of tensors: these are held against the weights when the model is built.
UNCOUNTED = re.compile("vocab|size|dim|position|context|ctx|window|len|token|seed|theta|base|param|flos", re.IGNORECASE)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        FoveateError: it cannot be read, is too large, or is not JSON.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise FoveateError(f"{path} is over {MAX_BYTES >> 20} MiB, too large for what it should be")
        return json.loads(raw.decode("utf-8"))
    except FoveateError:
        raise
    except OSError as error:
        raise FoveateError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, thousands of digits, brackets as deep
        raise FoveateError(f"{path} is not JSON: {error}") from None


def check_regular(path: Path) -> None:
    """Raise a ``FoveateError`` for a pipe, a socket or a device: reading one may wait for ever."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise FoveateError(f"{path} is no regular file, but a pipe or a device; save what it gives to a file")


def check_counts(config: Any, path: Path) -> None:
    """Refuse a number that libraries would count to, and nesting that they would follow, beyond all use.

    Raises:
        FoveateError: names the setting and its value.
    """
    left: list[tuple[str, Any, int]] = [("", config, 0)]
    while left:
        name, value, depth = left.pop()
        if depth > MAX_DEPTH:
            raise FoveateError(f"{path}: {shown(name)} is nested deeper than {MAX_DEPTH}")
        if isinstance(value, dict):
            left += [(key, item, depth + 1) for key, item in value.items()]
        elif isinstance(value, list):
            left += [(name, item, depth + 1) for item in value]
        elif isinstance(value, int | float) and value > MAX_COUNT and not UNCOUNTED.search(name):
            raise FoveateError(f"{path}: {shown(name)} is {shown(value)}, more than {MAX_COUNT:,}")


def free_memory() -> int:
    """Bytes that can still be allocated on the CPU, as far as the system tells."""
    import psutil

    return min(psutil.virtual_memory().available, _left_to_container())


def _left_to_container() -> int:
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return sys.maxsize
    return sys.maxsize if limit == "max" else int(limit) - int(used)
