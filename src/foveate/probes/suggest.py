"""From how far order and topic matter to a fovea: how much to see sharply, and how coarsely the rest."""

from __future__ import annotations

from dataclasses import dataclass

from foveate.errors import FoveateError
from foveate.probes.horizons import Horizon
from foveate.spec import Fovea, Run

SMALLEST_BLOCK = 16
GROUPS_PER_BLOCK = (
    4  # a region of groups starts as many group widths away at every scale: resolution falls with distance
)
RATIO = 4


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A walk of one retina, and what it sees of a text: exactly, then in groups up to ``grouped`` tokens back."""

    walk: str
    exact: int
    grouped: int


def suggest(order: Horizon, topic: Horizon | None, *, layers: int) -> Suggestion:
    """A fovea that sees at least the order horizon token by token, and scales that reach the topic horizon.

    A query sees its own block of W tokens up to itself and the whole block before it, so W, a power of two, is no less
    than the order horizon. G = W / 4 groups of 4, 16, … tokens follow, as many scales as reach the topic horizon;
    coarser ones beyond come by themselves.

    Raises:
        FoveateError: there is no topic horizon to go by.
    """
    if topic is None:
        raise FoveateError("--suggest takes the topic horizon, which comes from replace; leave --conditions out")
    block = SMALLEST_BLOCK
    while block < order.tokens:
        block *= 2
    groups = block // GROUPS_PER_BLOCK
    scales = [RATIO]
    while block + groups * sum(scales) < topic.tokens:
        scales.append(RATIO * scales[-1])
    attention = Fovea(block=block, groups=groups, scales=tuple(scales))
    return Suggestion(
        walk=str(Run(stride=1, layers=layers, attention=attention)),
        exact=block,
        grouped=block + groups * sum(scales),
    )
