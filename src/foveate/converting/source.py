"""A model to convert, as every family tells it: the same names for the same things, one layer after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from foveate.spec import FULL, Attention


@dataclass(frozen=True, kw_only=True)
class SourceLayer:
    """One layer: how it looks back, and its weights under the names of ``foveate.model.layers.Layer``."""

    attention: Attention = FULL
    weights: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A whole model.

    Attributes:
        family: of what it is, in words.
        settings: arguments of ``FoveateConfig`` but for the walk.
        layers: first to last.
        ends: embedding, last norm and head, under the names of ``FoveateForCausalLM``.
    """

    family: str
    settings: dict[str, Any] = field(default_factory=dict)
    layers: tuple[SourceLayer, ...]
    ends: dict[str, Tensor]
