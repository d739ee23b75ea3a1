"""Where ``from_llama`` was: it is ``foveate.converting.from_llama`` now, and code that asks for it here still works."""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if name == "from_llama":  # by name: this package stands below that one, and must not import it
        return importlib.import_module("foveate.converting").from_llama
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
