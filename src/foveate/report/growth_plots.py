"""How time and memory grow with the context: figures of a benchmark's records, one for each batch and dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from foveate.report.figures import COLOURS, INK, WIDTH, Plot, drawn, new_figure
from foveate.report.units import data_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = dict[str, Any]
Panel = tuple[str, str, Callable[[float], str]]  # key of a record, title, how its numbers read

DECODING: tuple[Panel, ...] = (
    ("ms_per_token", "ms per generated token", "{:g}".format),
    ("state_bytes", "bytes of state", data_size),
)
MEMORY: tuple[Panel, ...] = (
    ("saved_bytes", "saved for the backward", data_size),
    ("state_bytes", "bytes of state", data_size),
)
CAPTIONS = {
    "decode": "Time and state of decoding over the tokens read before, both axes logarithmic; dashed: predicted.",
    "memory": "What training saves and decoding carries over the context, both axes logarithmic; dashed: predicted.",
}


def growth_plots(kind: str, records: Sequence[Record]) -> Iterator[Plot]:
    """A figure of the ``decode`` or ``memory`` records of each batch and dtype that has two contexts or more."""
    for batch, dtype in dict.fromkeys((record["batch"], record["dtype"]) for record in records):
        shown = [record for record in records if (record["batch"], record["dtype"]) == (batch, dtype)]
        if len({record["context"] for record in shown}) > 1:
            caption = f"{CAPTIONS[kind]} Batch {batch}, {dtype}."
            yield from drawn(f"{kind}-batch{batch}-{dtype}", caption, partial(_panels, kind, shown))


def _panels(kind: str, records: Sequence[Record]) -> Figure:
    figure = new_figure(WIDTH, 3.4)
    axes = figure.subplots(1, 2)
    for ax, panel in zip(axes, DECODING if kind == "decode" else MEMORY, strict=True):
        _lines(ax, records, *panel)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _lines(ax: Axes, records: Sequence[Record], key: str, title: str, show: Callable[[float], str]) -> None:
    contexts = sorted({record["context"] for record in records})
    ax.set(title=title)
    if not any(record[key] for record in records):  # nothing that could stand on a logarithmic axis
        ax.set_axis_off()
        ax.text(0, 0.5, "none")
        return
    for at, name in enumerate(dict.fromkeys(record["name"] for record in records)):
        own = [record for record in records if record["name"] == name and record[key]]
        tint = COLOURS[at % len(COLOURS)]
        ax.plot([r["context"] for r in own], [r[key] for r in own], color=tint, marker="o", ms=3.5, lw=1.8, label=name)
        if key == "ms_per_token":
            low, high = [r["ms_low"] for r in own], [r["ms_high"] for r in own]
            ax.fill_between([r["context"] for r in own], low, high, color=tint, alpha=0.2, lw=0)
        predicted = [(r["context"], r["predicted"][key]) for r in own if r["predicted"] and key in r["predicted"]]
        if predicted:
            ax.plot(*zip(*predicted, strict=True), color=INK, lw=0.9, ls=(0, (3, 3)))
    ax.set(xscale="log", yscale="log", xlabel="tokens read before")
    ax.set_xticks(contexts, [_short(context) for context in contexts])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(lambda value, _: show(value))
    ax.grid(axis="y", color=INK, alpha=0.13, lw=0.6)


def _short(context: int) -> str:
    """As lengths are named: 64k is 65,536."""
    for unit, size in (("M", 1 << 20), ("k", 1 << 10)):
        if context >= size and context % size == 0:
            return f"{context // size}{unit}"
    return f"{context:,}"
