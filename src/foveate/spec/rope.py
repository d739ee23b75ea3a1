"""Rotary positions as a run's layers have them: a base, how much of a head turns, and which pairs turn more slowly.

Every way of stretching positions that depends on no text's length (linear, Llama 3's, YaRN …) comes to a divisor for
each pair.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foveate.errors import FoveateError, shown
from foveate.spec.checks import check_count

DEFAULT, NONE = "default", "none"  # what a run has that names no other, and one of whose layers nothing turns
MAX_HEAD = 1 << 20
KEYS = ("theta", "rotated", "divide")


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Pair i of the first ``rotated`` / 2 turns by theta^(-2i / rotated) / divide[i] a unit, the others not at all.

    Attributes:
        name: by which runs name it: ``1@1:rope=NAME``.
        theta: the base.
        rotated: channels of a head that turn; None: all.
        divide: one number for each pair that turns; empty: all 1.
    """

    name: str
    theta: float
    rotated: int | None = None
    divide: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        owner = f"rope {self.name}"
        if not re.fullmatch("[a-z][a-z0-9_]{0,30}", str(self.name)) or self.name == NONE:
            raise FoveateError(f"a rope's name is {shown(self.name)}; write a word of small letters, not 'none'")
        if not _is_positive(self.theta):
            raise FoveateError(f"{owner}: theta is {shown(self.theta)}; it must be a number above 0")
        if self.rotated is not None:
            check_count(owner, "rotated", self.rotated, 2, MAX_HEAD)
            if self.rotated % 2:
                raise FoveateError(f"{owner}: rotated is {self.rotated}; it must be even")
        if not isinstance(self.divide, list | tuple) or not all(map(_is_positive, self.divide)):
            raise FoveateError(f"{owner}: divide is {shown(self.divide)}; it must be numbers above 0")
        object.__setattr__(self, "divide", tuple(map(float, self.divide)))

    def check_head(self, head_dim: int) -> None:
        rotated = head_dim if self.rotated is None else self.rotated
        if rotated > head_dim:
            raise FoveateError(f"rope {self.name}: rotated is {rotated}, more than the {head_dim} channels of a head")
        if self.divide and len(self.divide) != rotated // 2:
            raise FoveateError(
                f"rope {self.name}: divide has {len(self.divide)} numbers for the {rotated // 2} pairs that turn"
            )

    def to_json(self) -> dict[str, Any]:
        values: dict[str, Any] = {"theta": self.theta}
        if self.rotated is not None:
            values["rotated"] = self.rotated
        return values | ({"divide": list(self.divide)} if self.divide else {})


def read_ropes(given: Any) -> tuple[Rope, ...]:
    """Ropes from ``{name: {theta, rotated, divide}}``."""
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise FoveateError(f"ropes is {shown(given)}; write a mapping such as {{'local': {{'theta': 10000}}}}")
    ropes = []
    for name, values in given.items():
        if not isinstance(values, Mapping) or "theta" not in values or not set(values) <= set(KEYS):
            raise FoveateError(f"ropes[{shown(name)}] is {shown(values)}; it takes theta, and may have rotated, divide")
        ropes.append(Rope(name=name, **values))
    return tuple(ropes)


def _is_positive(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and math.isfinite(value)
    except OverflowError:
        return False
