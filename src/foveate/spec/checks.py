"""What is checked of every number in a spec."""

from __future__ import annotations

from typing import Any

from foveate.errors import FoveateError, shown

MAX_REACH = 1 << 30  # the largest window, block or group count in units


def check_count(owner: str, name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise FoveateError(f"{owner}: {name} is {shown(value)}; it must be a whole number from {low} to {high}")
