"""Numbers as people read them."""

from __future__ import annotations

import re


def quantity(value: float) -> str:
    """Three digits and a letter: 1.23M."""
    return _short(value, ("", "k", "M", "G", "T", "P"))


def data_size(value: float) -> str:
    """Bytes in decimal units: 1.23 MB."""
    return _short(value, (" B", " kB", " MB", " GB", " TB", " PB"))


def _short(value: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if value < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}{units[-1]}"


def duration(seconds: float) -> str:
    """``8 s``, ``4 min 10 s`` or ``3 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def ratio(value: float, reference: float) -> str:
    """``0.70x``; empty where there is nothing to relate to."""
    return f"{value / reference:.2f}x" if reference else ""


def unbroken(text: str) -> str:
    """With no-break spaces between numbers and their units."""
    return re.sub(r"(?<=\d) (?=[A-Za-z%])", "\u00a0", text)


def signed(value: float, digits: int = 4) -> str:
    """``+0.0123`` or ``−0.0123``, with a proper minus."""
    return f"{value:+.{digits}f}".replace("-", "−")
