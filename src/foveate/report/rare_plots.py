"""The figures of ``foveate probe rare``, from its records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foveate.report.figures import COLOURS, INK, WIDTH, Plot, drawn, new_figure
from foveate.report.rare_tables import PARTS, Record, cells, distance_text, range_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

A_COLOUR, B_COLOUR = COLOURS[2], COLOURS[1]  # of what speaks for either model; grey for what speaks for none
UNDECIDED = COLOURS[0]


def rare_plots(records: Sequence[Record]) -> list[Plot]:
    """Two models' difference by how often words occur in training, and by how long ago they did in the context."""
    by_count = "Left: loss per word by training count. Right: what that makes of bits per byte."
    by_distance = "By how many words ago a word occurred last in the context."
    return [
        *drawn("rare-words", by_count, lambda: _by_count(records)),
        *drawn("rare-words-distance", by_distance, lambda: _by_distance(records)),
    ]


def _by_count(records: Sequence[Record]) -> Figure:
    head = records[0]
    buckets = [cell for cell in cells(records, part="words", distance=None) if cell["train_count"] is not None]
    others = [cell for part in ("between", "several") for cell in cells(records, part=part)]
    labels = [f"{range_text(cell['train_count'])}×" for cell in buckets] + [PARTS[cell["part"]] for cell in others]
    figure = new_figure(WIDTH, 0.95 + 0.34 * len(labels))
    left, right = figure.subplots(1, 2, sharey=True)
    for row, cell in enumerate(buckets):
        _point(left, cell["delta_nats"], row, cell["ci_low"], cell["ci_high"])
    for row, cell in enumerate([*buckets, *others]):
        tint = _tint(cell["delta_bpb"], cell["bpb_ci_low"], cell["bpb_ci_high"])
        right.barh(row, cell["delta_bpb"], height=0.6, color=tint, lw=0)
        if cell["bpb_ci_low"] is not None:
            right.plot([cell["bpb_ci_low"], cell["bpb_ci_high"]], [row, row], color=INK, lw=1)
    for ax, title in ((left, "nats per word"), (right, "part of the difference in bits per byte")):
        ax.axvline(0, color=INK, lw=0.8)
        ax.set(title=title, ylim=(len(labels) - 0.4, -0.6))
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x", color=INK, alpha=0.13, lw=0.6)
        ax.set_xlabel(f"← {head['a']} better     {head['b']} better →")
        low, high = ax.get_xlim()
        widest = max(-low, high)
        ax.set_xlim(min(low, -0.25 * widest), max(high, 0.25 * widest))
        ax.locator_params(axis="x", nbins=6)
    left.set_yticks(range(len(labels)), labels)
    left.set_ylabel("times in training")
    return figure


def _by_distance(records: Sequence[Record]) -> Figure:
    head = records[0]
    distances = [cell["distance"] for cell in cells(records, part="words", train_count=None) if cell["distance"]]
    buckets = [c["train_count"] for c in cells(records, part="words", distance=None) if c["train_count"] is not None]
    columns = min(3, len(buckets))
    lines = -(-len(buckets) // columns)
    figure = new_figure(WIDTH, 0.5 + 1.75 * lines)
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for ax in axes.flatten()[len(buckets) :]:
        ax.set_visible(False)
    for ax in axes.flatten()[max(0, len(buckets) - columns) : len(buckets)]:
        ax.tick_params(labelbottom=True)  # also where the last line of panels ends early
    for ax, bucket in zip(axes.flatten(), buckets, strict=False):
        for cell in cells(records, part="words", train_count=bucket):
            if cell["distance"] is not None:
                at = distances.index(cell["distance"])
                tint = _tint(cell["delta_nats"], cell["ci_low"], cell["ci_high"])
                if cell["ci_low"] is not None:
                    ax.plot([at, at], [cell["ci_low"], cell["ci_high"]], color=tint, lw=2)
                    ax.plot(at, cell["delta_nats"], "o", color=tint, ms=5)
        ax.axhline(0, color=INK, lw=0.8)
        ax.set_title(f"{range_text(bucket)}× in training")
        ax.set_xticks(
            range(len(distances)), ["\n".join(distance_text(distance).rsplit(" ", 1)) for distance in distances]
        )
        ax.tick_params(axis="x", labelsize=7.5)
        ax.grid(axis="y", color=INK, alpha=0.13, lw=0.6)
        ax.set_xlim(-0.5, len(distances) - 0.5)
    figure.supylabel(f"nats per word, above 0 {head['b']} better", fontsize=9.5)
    return figure


def _point(ax: Axes, value: float, row: int, low: float | None, high: float | None) -> None:
    tint = _tint(value, low, high)
    if low is not None and high is not None:
        ax.plot([low, high], [row, row], color=tint, lw=2)
    ax.plot(value, row, "o", color=tint, ms=6)


def _tint(value: float, low: float | None, high: float | None) -> str:
    """The colour of the better model, where the interval leaves no doubt of it."""
    if low is None or high is None or low <= 0 <= high:
        return UNDECIDED
    return B_COLOUR if value > 0 else A_COLOUR
