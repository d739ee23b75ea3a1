"""What a model is: a walk over levels of resolution, and how its layers attend. No torch in here."""

from foveate.spec.block import ACTIVATIONS, Block, check_cap
from foveate.spec.kinds import FULL, KINDS, Attention, parse_attention
from foveate.spec.kinds.fovea import Fovea
from foveate.spec.kinds.full import Full
from foveate.spec.kinds.window import Window
from foveate.spec.kinds.zoom import Zoom
from foveate.spec.rope import Rope, read_ropes
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
    "ACTIVATIONS",
    "EXAMPLE",
    "EXPANDINGS",
    "FULL",
    "KINDS",
    "MAX_LAYERS",
    "MAX_STRIDE",
    "MAX_WIDTH",
    "POOLINGS",
    "Attention",
    "Block",
    "Expand",
    "Fovea",
    "Full",
    "HierarchySpec",
    "Level",
    "Pool",
    "Rope",
    "Run",
    "Step",
    "Window",
    "Zoom",
    "check_cap",
    "default_feed_forward",
    "parse_attention",
    "parse_walk",
    "read_ropes",
]
