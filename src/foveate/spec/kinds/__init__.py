"""The kinds of attention, and the one place that lists them."""

from __future__ import annotations

from foveate.errors import FoveateError, shown
from foveate.spec.kinds.base import Attention
from foveate.spec.kinds.fovea import Fovea
from foveate.spec.kinds.full import Full
from foveate.spec.kinds.sink import Sink
from foveate.spec.kinds.window import Window
from foveate.spec.kinds.zoom import Zoom

KINDS: tuple[type[Attention], ...] = (Full, Window, Sink, Fovea, Zoom)
FULL = Full()


def parse_attention(text: str) -> Attention:
    """Read the text after the colon of a run: ``full``, ``windowN``, ``fovea[W][,groups=G][,…]``.

    Raises:
        FoveateError: no kind reads it.
    """
    for kind in KINDS:
        attention = kind.read(text)
        if attention is not None:
            return attention
    examples = ", ".join(kind.example for kind in KINDS)
    raise FoveateError(f"attention {shown(text)} is unknown; write {examples}")
