"""Zoom: everything is kept; near units are seen as they are, far ones as thumbnails, opened where the query looks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from foveate.errors import FoveateError, shown
from foveate.spec.checks import MAX_REACH, check_count
from foveate.spec.kinds.base import SAMPLES, Attention
from foveate.spec.zoom_plan import ZoomPlan

if TYPE_CHECKING:
    from foveate.spec.walk import Level

COUNTS = ("near", "sinks", "block", "opened", "thumbnails")


@dataclass(frozen=True, kw_only=True)
class Zoom(Attention):
    """Sees near units and the first few one by one, far ones as sorted groups, the best of which are opened."""

    plan: ZoomPlan = field(default_factory=ZoomPlan)

    name = "zoom"
    example = "zoom or zoom64,opened=16"
    marks = ("░", "-")
    opacity = 0.4
    module = "foveate.model.zoom:ZoomAttention"

    def __post_init__(self) -> None:
        for name in COUNTS:
            check_count("zoom", name, getattr(self.plan, name), 0, MAX_REACH)

    @classmethod
    def read(cls, text: str) -> Zoom | None:
        head, *options = text.split(",")
        if not (match := re.fullmatch(r"zoom([0-9]{0,10})", head)):
            return None
        chosen: dict[str, Any] = {"near": int(match[1])} if match[1] else {}
        for option in options:
            name, _, value = option.partition("=")
            if name in COUNTS[1:] and re.fullmatch("[0-9]{1,10}", value):
                chosen[name] = int(value)
            elif name == "spread" and re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4})?", value):
                chosen[name] = float(value)
            elif name == "groups" and re.fullmatch("[0-9]{1,10}(/[0-9]{1,10})*", value):
                chosen[name] = tuple(map(int, value.split("/")))
            elif name == "keep" and re.fullmatch("([0-9]{1,10}|all)(/([0-9]{1,10}|all))*", value):
                chosen[name] = tuple(None if part == "all" else int(part) for part in value.split("/"))
            else:
                raise FoveateError(
                    f"zoom option {shown(option)} is unknown; write opened=32, groups=64/16/4, keep=all/32/32, "
                    "block=512, sinks=4, thumbnails=16 or spread=1"
                )
        if "groups" in chosen and "keep" not in chosen:
            chosen["keep"] = (None, *[32] * (len(chosen["groups"]) - 1))
        return cls(plan=ZoomPlan(**chosen))

    def __str__(self) -> str:
        plan, default = self.plan, ZoomPlan()
        text = "zoom" if plan.near == default.near else f"zoom{plan.near}"
        for name in COUNTS[1:]:
            if getattr(plan, name) != getattr(default, name):
                text += f",{name}={getattr(plan, name)}"
        if plan.spread:
            text += f",spread={plan.spread:.4f}".rstrip("0").rstrip(".")
        if plan.groups != default.groups:
            text += ",groups=" + "/".join(map(str, plan.groups))
        if plan.keep != (None, *[32] * (len(plan.groups) - 1)):
            text += ",keep=" + "/".join("all" if kept is None else str(kept) for kept in plan.keep)
        return text

    def seen(self, t: int) -> list[tuple[int, int]]:
        """All units up to ``t``: which of them are seen as groups, their content decides."""
        return [(unit, 1) for unit in range(t + 1)]

    def keys_read(self, units: int) -> int:
        """Keys read as they are, and the summaries of groups that are read to find them."""
        return sum(self.plan.reads(units - 1)) if units else 0

    def items_kept(self, units: int) -> int:
        """All keys and values in the order of the text, those filed for reading again, and the means of groups."""
        plan = self.plan
        slots = -(-max(units - plan.sinks, 1) // plan.block) * plan.block if units else 0
        return units + (plan.sinks + slots + sum(slots // size for size in plan.levels) if units else 0)

    def saved(self, level: Level, units: int) -> int:
        # keys and values that each query has opened are gathered for it, and kept with the scores
        count = min(units, SAMPLES)
        own = sum(self._opened((2 * i + 1) * units // (2 * count)) for i in range(count)) / count if units else 0.0
        scores = self.mean_keys_read(units)
        d, K = level.head_dim, level.kv_heads
        return super().saved(level, units) + int(units * (2 * own * K * d + 2 * scores * level.heads))

    def _opened(self, position: int) -> int:
        keys, summaries = self.plan.reads(position)
        return keys - (position + 1 - self.plan.far(position)) if summaries else 0
