"""Window attention: every unit sees the last few, itself included."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foveate.spec.checks import MAX_REACH, check_count
from foveate.spec.kinds.base import Attention

if TYPE_CHECKING:
    from foveate.spec.walk import Level


@dataclass(frozen=True, kw_only=True)
class Window(Attention):
    """Every unit sees the last ``window`` units, itself included."""

    window: int

    name = "window"
    example = "window128"
    marks = ("▒", "=")
    opacity = 0.65
    module = "foveate.model.local:LocalAttention"
    pinned: ClassVar[int] = 0  # first units that are seen for ever

    def __post_init__(self) -> None:
        check_count(self.name, "window", self.window, 1, MAX_REACH)

    @classmethod
    def read(cls, text: str) -> Window | None:
        match = re.fullmatch(cls.name + "([0-9]{1,10})", text)
        return cls(window=int(match[1])) if match else None

    def __str__(self) -> str:
        return f"{self.name}{self.window}"

    def seen(self, t: int) -> list[tuple[int, int]]:
        return [(unit, 1) for unit in range(t + 1) if unit < self.pinned or unit > t - self.window]

    def keys_read(self, units: int) -> int:
        return min(self.pinned + self.window, units)

    def mean_keys_read(self, units: int) -> float:
        full = self.keys_read(units)
        return full - full * (full - 1) / (2 * units) if units else 0.0

    def saved(self, level: Level, units: int) -> int:
        saved = super().saved(level, units)
        if units < 2 * self.window:
            return saved
        # blocks of queries after the first bring the keys of two windows along; joining the blocks copies the output
        queries, keys = level.width, level.kv_heads * level.head_dim
        blocks = -(-units // self.window) - 1
        reach = 2 * self.window + self.pinned
        return saved + blocks * (2 * reach * keys + self.window * queries) + units * queries

    def saved_masks(self, units: int) -> tuple[int, int]:
        if units <= self.window:
            return 0, 0
        if units < 2 * self.window:
            return units * units, 0
        return self.window * (2 * self.window + self.pinned), 0
