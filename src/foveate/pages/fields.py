"""What a visitor sends: every field named, of its type and in its range, or one line that says which is not."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from foveate.errors import shown
from foveate.serve.errors import bad

LONGEST_TEXT = 400_000  # characters


class Fields:
    """The fields of a request's JSON object; each method takes one out, ``end`` refuses what is left.

    All raise ``ApiError`` (400).
    """

    def __init__(self, body: Any) -> None:
        if not isinstance(body, dict):
            raise bad("the request is not a JSON object")
        self._left = dict(body)

    def name(self, field: str) -> str:
        value = self._left.pop(field, None)
        if not isinstance(value, str) or not value:
            raise bad(f"{field}: {shown(value)} is not a model's name", field)
        return value

    def names(self, field: str, least: int, most: int) -> list[str]:
        value = self._left.pop(field, None)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise bad(f"{field}: {shown(value)} is not a list of models' names", field)
        if not least <= len(set(value)) == len(value) <= most:
            raise bad(f"{field}: choose {least} to {most} models, each once", field)
        return value

    def text(self, field: str, default: str | None = None) -> str:
        value = self._left.pop(field, default)
        if not isinstance(value, str):
            raise bad(f"{field}: {shown(value)} is not text", field)
        if len(value) > LONGEST_TEXT:
            raise bad(f"{field}: it has {len(value):,} characters, and {LONGEST_TEXT:,} are the most here", field)
        return value

    def whole(self, field: str, low: int, high: int, *, default: Any) -> Any:
        value = self._left.pop(field, None)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise bad(f"{field}: {shown(value)} is not a whole number from {low:,} to {high:,}", field)
        return value

    def number(self, field: str, low: float, high: float, *, default: float) -> float:
        value = self._left.pop(field, None)
        if value is None:
            return default
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not math.isfinite(value) or not low <= value <= high:
            raise bad(f"{field}: {shown(value)} is not a number from {low:g} to {high:g}", field)
        return float(value)

    def choice(self, field: str, among: Collection[str], *, default: str) -> str:
        value = self._left.pop(field, default)
        if not isinstance(value, str) or value not in among:
            raise bad(f"{field}: {shown(value)} is unknown; choose of {', '.join(among)}", field)
        return value

    def end(self) -> None:
        if self._left:
            name = next(iter(self._left))
            raise bad(f"{shown(name)} is no field of this; leave it out", str(name)[:80])
