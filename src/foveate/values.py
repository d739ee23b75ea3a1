"""Numbers as users write them, 3M or 64k: readers for argparse's ``type``."""

from __future__ import annotations

import argparse
import re

from foveate.errors import shown

THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def count(text: str) -> int:
    """A whole number from 1, as in ``300``, ``10k`` or ``2.5M`` (thousands and millions)."""
    return _scaled(text, THOUSANDS, "write for example 500k or 3M")


def length(text: str) -> int:
    """A number of tokens in sequence, as in ``512`` or ``64k``: here k is 1024, as lengths are named."""
    return _scaled(text, BINARY, "write for example 1024 or 64k")


def seed(text: str) -> int:
    """A seed, as the generators of torch and numpy take it: a whole number from 0 below 2 to the 63rd."""
    if not re.fullmatch("[0-9]{1,19}", text.strip()) or int(text) >= 1 << 63:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no seed; write a whole number from 0 to {(1 << 63) - 1}")
    return int(text)


def _scaled(text: str, units: dict[str, int], remedy: str) -> int:
    match = re.fullmatch(r"([0-9][0-9_]{0,17}(?:\.[0-9]{1,9})?)([a-z]?)", text.strip().lower())
    if not match or match[2] not in units:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a number; {remedy}")
    value = float(match[1]) * units[match[2]] if "." in match[1] else int(match[1]) * units[match[2]]
    if value != int(value) or value < 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} must be a whole number from 1; {remedy}")
    return int(value)
