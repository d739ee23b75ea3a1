"""Attention sinks: the last few units and, for ever, the first ones (StreamingLLM, arXiv:2309.17453)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from foveate.spec.kinds.window import Window


@dataclass(frozen=True, kw_only=True)
class Sink(Window):
    """Every unit sees the last ``window`` units, itself included, and the first ``pinned``, where attention rests."""

    name = "sink"
    example = "sink128"
    marks = ("▓", "+")
    opacity = 0.55
    pinned: ClassVar[int] = 4
