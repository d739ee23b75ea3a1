"""How the values of settings are read, from a flag, from YAML or from code alike; a bad one is named in one line."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from dataclasses import field
from typing import Any

from foveate import values
from foveate.errors import FoveateError
from foveate.presets import resolve_walk


def count(value: Any) -> int:
    return _read_with(values.count, value)


def length(value: Any) -> int:
    return _read_with(values.length, value)


def _read_with(reader: Callable[[str], int], value: Any) -> int:
    try:
        return reader(str(value))
    except argparse.ArgumentTypeError as error:
        raise FoveateError(str(error)) from None


def whole(value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch("[0-9]{1,18}", str(value)):
        raise FoveateError(f"{value!r} is not a whole number from 0")
    return int(value)


def number(low: float, high: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if isinstance(value, bool) or not low <= number <= high:
            raise FoveateError(f"{value!r} is not a number from {low:g} to {high:g}")
        return number

    return read


def choice(*options: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in options:
            raise FoveateError(f"{value!r} is unknown; choose one of {', '.join(options)}")
        return value

    return read


def text(value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise FoveateError(f"{value!r} is not a text")
    return str(value)


def texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, os.PathLike)):
        return (text(value),)
    if not isinstance(value, (list, tuple)):
        raise FoveateError(f"{value!r} is not a list of texts")
    return tuple(map(text, value))


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise FoveateError(f"{value!r} is neither true nor false")
    return value


def walk_name(value: Any) -> str:
    return resolve_walk(str(value))


def option(default: Any, read: Callable[[Any], Any], group: str, help: str, metavar: str | None = None) -> Any:
    """A field of the settings: its default, how a value is read, and the group and help of its flag."""
    return field(default=default, metadata={"read": read, "group": group, "help": help, "metavar": metavar})
