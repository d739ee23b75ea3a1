"""Full attention: every unit sees itself and all units before it."""

from __future__ import annotations

from dataclasses import dataclass

from foveate.spec.kinds.base import Attention


@dataclass(frozen=True, kw_only=True)
class Full(Attention):
    """Every unit sees itself and all units before it."""

    name = "full"
    example = "full"
    marks = ("█", "#")
    opacity = 1.0
    module = "foveate.model.attention:FullAttention"
    flat = False

    @classmethod
    def read(cls, text: str) -> Full | None:
        return cls() if text == "full" else None

    def __str__(self) -> str:
        return "full"

    def seen(self, t: int) -> list[tuple[int, int]]:
        return [(unit, 1) for unit in range(t + 1)]

    def keys_read(self, units: int) -> int:
        return units

    def mean_keys_read(self, units: int) -> float:
        return (units + 1) / 2 if units else 0.0
