"""Whether there is memory for what is to be measured, asked before it is taken: a system may kill without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from foveate.devices import free_memory

USABLE = 0.9  # of what is free


def has_room(needed: float, device: torch.device, what: str, note: Callable[[str], Any]) -> bool:
    """Whether ``needed`` more bytes are free on a device; if not, ``note`` is told that ``what`` is left out."""
    free = free_memory(device)
    if needed <= USABLE * free:
        return True
    note(f"{what}: left out, it would take about {needed / 2**30:,.1f} GiB of memory and {free / 2**30:,.1f} are free")
    return False
