"""What all figures share: how they look, and how they become SVG (for a page, in light and dark) and PNG."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#7d8590", "#2f81f7", "#d9822b", "#3f9c5a", "#a371c9", "#c0504d")  # seen on white and on black alike
INK = "#1b1f24"  # in the SVG replaced by the text colour of the page
PAPER = "#ffffff"
WIDTH = 7.4  # inches
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "foveate",
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure, its file name without ending, and what it shows in a sentence."""

    name: str
    caption: str
    svg: str
    png: bytes


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    # not pyplot: nothing global, no display
    return Figure(figsize=(width, height), layout="constrained", facecolor="none")


def drawn(name: str, caption: str, draw: Callable[[], Figure | None]) -> list[Plot]:
    """The figure that ``draw`` makes, in the style of all; none if it makes none."""
    import matplotlib

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = draw()
        return [] if figure is None else [Plot(name=name, caption=caption, svg=as_svg(figure), png=as_png(figure))]


def as_svg(figure: Figure) -> str:
    """Text stays text, in the colour of the page around it."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    style = "<style>.figure{color:#1b1f24}@media(prefers-color-scheme:dark){.figure{color:#e6edf3}}</style>"
    head, tag_end, body = text.partition(">")
    return f'{head} class="figure" role="img"{tag_end}{style}{body}'


def as_png(figure: Figure) -> bytes:
    """On white."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160, facecolor=PAPER)
    return file.getvalue()
