"""The figures of a shuffle probe: what each treatment costs over the distance, and a map over all boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from foveate.report.figures import COLOURS, INK, WIDTH, Plot, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = dict[str, Any]

TINTS = {"shuffle": COLOURS[1], "replace": COLOURS[2], "truncate": COLOURS[0]}
UNIT_TINTS = (COLOURS[1], COLOURS[3], COLOURS[4], COLOURS[5])  # of shuffles of several units
HEIGHT = 3.4
LINEAR_NATS = 0.1  # up to here the axis is linear, from here logarithmic
NATS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
TICKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


def shuffle_plots(records: Sequence[Record]) -> list[Plot]:
    """``shuffle``: the curves of each boundary; ``map``: boundary by distance, where there are several boundaries.

    Args:
        records: what ``ShuffleResult.to_json`` gives.
    """
    curves = [record for record in records if record["kind"] == "curve" and record["condition"] != "original"]
    summaries = [record for record in records if record["kind"] == "summary"]
    boundaries = sorted({curve["boundary"] for curve in curves})
    middle = boundaries[len(boundaries) // 2]
    caption = "What the text before the boundary is worth, in order and not; bands: 95% of bootstrap resamples."
    found = drawn("shuffle", caption, lambda: _curves(curves, summaries, middle))
    if len(boundaries) > 1:
        caption = "Nats lost at each distance past the boundary, for boundaries all over the context."
        found += drawn("map", caption, lambda: _map(curves, boundaries))
    return found


def _name(curve: Record) -> str:
    return {"shuffle": f"{curve['unit']}s shuffled", "replace": "other text", "truncate": "no text"}[curve["condition"]]


def _tints(curves: Sequence[Record]) -> list[str]:
    units = [curve["unit"] for curve in curves if curve["condition"] == "shuffle"]
    tints = dict(zip(units, UNIT_TINTS * len(units), strict=False))
    return [tints[curve["unit"]] if curve["condition"] == "shuffle" else TINTS[curve["condition"]] for curve in curves]


def _curves(curves: Sequence[Record], summaries: Sequence[Record], boundary: int) -> Figure:
    shown = [curve for curve in curves if curve["boundary"] == boundary]
    figure = new_figure(WIDTH, HEIGHT)
    ax = figure.subplots()
    farthest = len(shown[0]["distance"])
    names = []
    for curve, tint in zip(shown, _tints(shown), strict=True):
        bins = curve["binned"]
        ax.plot(bins["distance"], bins["delta_nats"], color=tint, lw=1.8)
        ax.fill_between(bins["distance"], bins["ci_low"], bins["ci_high"], color=tint, alpha=0.2, lw=0)
        names.append((bins["delta_nats"][0], _name(curve), tint))
    ax.axhline(0, color=INK, lw=0.8)
    highest = max(max(curve["binned"]["delta_nats"]) for curve in shown)
    lowest = min(min(curve["binned"]["ci_low"]) for curve in shown)
    ticks = [0, *(nats for nats in NATS if nats <= highest)]
    # small differences over long distances are what it is about, large ones at once are beside them
    ax.set_yscale("symlog", linthresh=LINEAR_NATS, linscale=1.0)
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set(
        xscale="log",
        xlim=(1, farthest),
        ylim=(max(lowest, -LINEAR_NATS), 4 * highest),
        xlabel="tokens past the boundary",
        ylabel="nats per token more",
        title=f"What the {boundary:,} tokens before the boundary are worth",
    )
    ax.set_xticks([tick for tick in TICKS if tick <= farthest], [f"{tick:,}" for tick in TICKS if tick <= farthest])
    ax.minorticks_off()
    ax.grid(axis="y", color=INK, alpha=0.13, lw=0.6)
    for row, (_, name, tint) in enumerate(sorted(names, reverse=True)):  # as the curves stand, highest first
        ax.text(1.02, 0.98 - 0.09 * row, name, color=tint, transform=ax.transAxes, va="top", weight="bold")
    summary = next(summary for summary in summaries if summary["boundary"] == boundary)
    _mark_horizon(ax, summary, "order", TINTS["shuffle"], 0.95)
    _mark_horizon(ax, summary, "topic", TINTS["replace"], 0.86)
    return figure


def _mark_horizon(ax: Axes, summary: Record, which: str, tint: str, height: float) -> None:
    """A point with its interval, at the top of the axes."""
    tokens = summary[f"{which}_horizon"]
    if tokens is None:
        return
    low, high = summary[f"{which}_horizon_ci"]
    place: dict[str, Any] = {"color": tint, "transform": ax.get_xaxis_transform(), "clip_on": False}
    ax.plot([max(low, 1), max(high, 1)], [height, height], lw=2.5, alpha=0.5, **place)
    ax.plot(max(tokens, 1), height, marker="o", ms=6, lw=0, **place)
    farthest = summary["context"] - summary["boundary"]
    shown = [f"{'≥ ' if number == farthest else ''}{number}" for number in (tokens, low, high)]
    text = f"{which} horizon {shown[0]} [{shown[1]}, {shown[2]}]"
    in_right_half = tokens**2 > farthest
    beside: dict[str, Any] = {
        "xycoords": place["transform"],
        "textcoords": "offset points",
        "va": "center",
        "color": tint,
    }
    if in_right_half:
        ax.annotate(text, (max(low, 1), height), (-7, 0), ha="right", **beside)
    else:
        ax.annotate(text, (max(high, 1), height), (7, 0), ha="left", **beside)


def _map(curves: Sequence[Record], boundaries: Sequence[int]) -> Figure:
    from matplotlib.colors import PowerNorm

    kinds = list(dict.fromkeys((curve["condition"], curve["unit"]) for curve in curves))
    figure = new_figure(WIDTH, 0.7 + (0.45 + 0.26 * len(boundaries)) * len(kinds))
    axes = figure.subplots(len(kinds), 1, squeeze=False, sharex=True)[:, 0]
    highest = max(max(curve["binned"]["delta_nats"]) for curve in curves)
    norm = PowerNorm(0.5, 0, highest)  # the far, small values are what it is about
    for ax, (condition, unit) in zip(axes, kinds, strict=True):
        for row, boundary in enumerate(boundaries):
            curve = next(c for c in curves if (c["condition"], c["unit"], c["boundary"]) == (condition, unit, boundary))
            bins = curve["binned"]
            middles = bins["distance"]
            edges = [1, *((a * b) ** 0.5 for a, b in pairwise(middles)), len(curve["distance"])]
            ax.pcolormesh(edges, [row - 0.46, row + 0.46], [bins["delta_nats"]], cmap="viridis", norm=norm)
        ax.set(xscale="log", ylim=(-0.6, len(boundaries) - 0.4), ylabel="boundary")
        ax.set_title(_name({"condition": condition, "unit": unit}))
        ax.set_yticks(range(len(boundaries)), [f"{boundary:,}" for boundary in boundaries])
        ax.minorticks_off()
    farthest = max(len(curve["distance"]) for curve in curves)
    axes[-1].set_xticks([tick for tick in TICKS if tick <= farthest], [f"{t:,}" for t in TICKS if t <= farthest])
    axes[-1].set_xlabel("tokens past the boundary")
    bar = figure.colorbar(axes[0].collections[0], ax=list(axes), label="nats per token more")
    bar.outline.set_visible(False)
    return figure
