"""What a model is: a walk over levels of resolution, and how its layers attend. No torch in here."""

from foveate.spec.kinds import FULL, KINDS, Attention, parse_attention
from foveate.spec.kinds.fovea import Fovea
from foveate.spec.kinds.full import Full
from foveate.spec.kinds.window import Window
from foveate.spec.walk import (
    EXAMPLE,
    EXPANDINGS,
    MAX_LAYERS,
    MAX_STRIDE,
    MAX_WIDTH,
    POOLINGS,
    Expand,
    HierarchySpec,
    Level,
    Pool,
    Run,
    Step,
    default_feed_forward,
    parse_walk,
)

__all__ = [
    "EXAMPLE",
    "EXPANDINGS",
    "FULL",
    "KINDS",
    "MAX_LAYERS",
    "MAX_STRIDE",
    "MAX_WIDTH",
    "POOLINGS",
    "Attention",
    "Expand",
    "Fovea",
    "Full",
    "HierarchySpec",
    "Level",
    "Pool",
    "Run",
    "Step",
    "Window",
    "default_feed_forward",
    "parse_attention",
    "parse_walk",
]
