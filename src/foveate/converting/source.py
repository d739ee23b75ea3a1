"""A model to convert, as every family tells it: the same names for the same things, one layer after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from foveate.spec import FULL, Attention
from foveate.spec.rope import DEFAULT


@dataclass(frozen=True, kw_only=True)
class SourceLayer:
    """One layer: how it looks back, its rope's name, its weights under the names of ``foveate.model.layers.Layer``."""

    attention: Attention = FULL
    rope: str = DEFAULT
    weights: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A whole model.

    Attributes:
        family: its model_type.
        settings: arguments of ``FoveateConfig`` but for the walk.
        layers: first to last.
        ends: embedding, last norm and head, under the names of ``FoveateForCausalLM``.
        exact_to: tokens of a text up to which a plain walk computes the same; None: of any.
    """

    family: str
    settings: dict[str, Any] = field(default_factory=dict)
    layers: tuple[SourceLayer, ...]
    ends: dict[str, Tensor]
    exact_to: int | None = None
