"""The figures of a comparison, each as SVG (for the page, in light and dark) and as PNG.

Lines and bars are labelled where they are, in the colour of their model; there is no legend to look up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from foveate.report.figures import COLOURS, INK, WIDTH, Plot, drawn, new_figure
from foveate.report.results import Record, Results
from foveate.report.units import data_size, quantity
from foveate.spec import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL_WIDTH, LABEL_HEIGHT = 0.35, 0.085  # of the axes
WIDEST_LINEAR = 32  # longest context by shortest; wider ranges are drawn on logarithmic axes
OPACITY = {kind.name: kind.opacity for kind in KINDS}  # of a layer, by its attention


@dataclass(frozen=True, kw_only=True)
class _End:
    """The end of a line, and what to write there."""

    x: float
    y: float
    text: str
    colour: str


def plots(results: Results) -> list[Plot]:
    """Every figure that the results have something for."""
    return [
        plot
        for name, caption, draw in (
            ("walks", "Where each layer works, from the first to the last: a row is a resolution.", _walks),
            ("learning", "Bits per byte of some held-out text while training: by text read, and by time.", _learning),
            ("costs", "What each model needs, and how well it predicts; | marks what the walk alone predicts.", _costs),
            ("growth", "How time and memory of decoding grow with what has been read; dashed: predicted.", _growth),
        )
        for plot in drawn(name, caption, partial(draw, results))
    ]


def colour(results: Results, name: str) -> str:
    """The colour of a model: grey for the first, which the others are compared with."""
    at = results.names.index(name)
    return COLOURS[at] if at < len(COLOURS) else COLOURS[1 + (at - 1) % (len(COLOURS) - 1)]


def _walks(results: Results) -> Figure:
    from matplotlib.patches import Rectangle

    models = results.all("model")
    strides = [sorted({run["stride"] for run in model["runs"]}) for model in models]
    figure = new_figure(WIDTH, 0.45 + 0.5 * len(models) + 0.26 * sum(map(len, strides)))
    axes = figure.subplots(len(models), 1, squeeze=False, height_ratios=[len(levels) for levels in strides])[:, 0]
    deepest = max(model["layers"] for model in models)
    for ax, model, levels in zip(axes, models, strides, strict=True):
        depth, tint = 0, colour(results, model["name"])
        for run in model["runs"]:
            row = levels.index(run["stride"])
            for _ in range(run["layers"]):
                cell = Rectangle(
                    (depth + 0.08, row - 0.38), 0.84, 0.76, color=tint, lw=0, alpha=OPACITY.get(run["attention"], 1.0)
                )
                ax.add_patch(cell)
                depth += 1
        ax.set(xlim=(-0.2, deepest + 0.2), ylim=(len(levels) - 0.5, -0.5), xticks=[])
        ax.set_yticks(range(len(levels)), [_level_name(stride) for stride in levels])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        per_token = model["layer_runs_per_token"]
        work = f"{per_token:.3g} of them run per token" if per_token != model["layers"] else "all run at every token"
        ax.set_title(f"{model['name']}: {model['layers']} layers, {work}", color=tint)
    return figure


def _level_name(stride: int) -> str:
    return "every token" if stride == 1 else f"every {stride} tokens"


def _learning(results: Results) -> Figure | None:
    curves = results.all("curve")
    if not curves:
        return None
    # training loss is per token, which does not compare across tokenizers, but is all there may be
    kind, key = ("valid", "bpb") if all(curve["valid"]["bpb"] for curve in curves) else ("train", "loss")
    figure = new_figure(WIDTH, 2.7)
    left, right = figure.subplots(1, 2, sharey=True)
    units = "bits per byte, held out" if key == "bpb" else "training loss, nats per token"
    for ax, x, label in ((left, "tokens", "tokens trained on"), (right, "seconds", "seconds of training")):
        ends = []
        for curve in curves:
            line = curve[kind]
            tint = colour(results, curve["name"])
            marker = "o" if len(line[x]) <= 30 else None
            ax.plot(line[x], line[key], color=tint, lw=1.8, marker=marker, ms=3)
            text = f"{curve['name']} {line[key][-1]:.3f}"
            ends.append(_End(x=line[x][-1], y=line[key][-1], text=text, colour=tint))
        ax.set(xlabel=label, xlim=(0, None))
        ax.grid(axis="y", color=INK, alpha=0.13, lw=0.6)
        _limit_to_the_second_half(ax, [curve[kind][key] for curve in curves])
        _label_ends(ax, ends)
    left.set_ylabel(units)
    left.xaxis.set_major_formatter(lambda value, _: quantity(value))
    return figure


def _limit_to_the_second_half(ax: Axes, lines: list[list[float]]) -> None:
    """Leave the first steep fall out of the picture, where models do not differ."""
    low = min(map(min, lines))
    high = max(line[len(line) // 8] for line in lines)
    margin = 0.06 * (high - low) or 0.1
    ax.set_ylim(low - margin, high + margin)


def _label_ends(ax: Axes, ends: list[_End]) -> None:
    """Each line's label at its end, moved up where it would touch another. Call it once the axis has its limits."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    last_x, height = -math.inf, -math.inf
    for end in sorted(ends, key=lambda end: end.y):
        lowest = height + LABEL_HEIGHT * (top - bottom) if abs(end.x - last_x) < LABEL_WIDTH * (right - left) else end.y
        last_x, height = end.x, max(end.y, lowest)
        place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
        ax.annotate(end.text, (end.x, height), color=end.colour, **place)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class _Bars:
    """One panel of bars: a value of each model, None where it is not known."""

    title: str
    values: list[float | None]
    predicted: list[float | None]
    show: Callable[[float], str]


def _panels(results: Results) -> Iterator[_Bars]:
    def values(kind: str, key: str) -> list[float | None]:
        return [(results.one(kind, name) or {}).get(key) for name in results.names]

    def decoding(context: int) -> list[Record]:
        return [results.decode(name, context) or {} for name in results.names]

    def bars(title: str, shown: list[float | None], show: Callable[[float], str], predicted: Any = None) -> _Bars:
        return _Bars(title=title, values=shown, predicted=predicted or [None] * len(shown), show=show)

    kept, predicted = (values("training_memory", key) for key in ("kept_bytes", "predicted_kept_bytes"))
    yield bars("bits per byte, lower is better", values("quality", "bpb"), "{:.3f}".format)
    yield bars("kept for backward", kept, data_size, predicted)
    yield bars("peak memory of a training step", values("training_memory", "peak_bytes"), data_size)
    yield bars("training, tokens per second", values("training_speed", "train_tokens_per_s"), quantity)
    for context in results.decode_contexts[:1]:
        records = decoding(context)
        times = [record.get("ms_per_token") for record in records]
        yield bars(f"decoding after {context:,} tokens, ms per token", times, "{:.3g} ms".format)
        state = [record.get("state_bytes") for record in records]
        yield bars(
            f"cache after {context:,} tokens",
            state,
            data_size,
            [(r.get("predicted") or {}).get("state_bytes") for r in records],
        )


def _costs(results: Results) -> Figure | None:
    panels = [panel for panel in _panels(results) if any(value is not None for value in panel.values)]
    if not panels:
        return None
    columns = 2
    lines = math.ceil(len(panels) / columns)
    models = len(results.names)
    figure = new_figure(WIDTH, lines * (0.55 + 0.27 * models))
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    for ax, panel in zip(axes, panels, strict=False):
        longest = max(value for value in panel.values if value is not None)
        for row, (name, value, predicted) in enumerate(zip(results.names, panel.values, panel.predicted, strict=True)):
            if value is None:
                ax.text(0, row, " not known", va="center", alpha=0.6)
                continue
            tint = colour(results, name)
            ax.barh(row, value, height=0.66, color=tint, lw=0)
            ax.text(
                max(value, predicted or 0) + 0.02 * longest,
                row,
                panel.show(value),
                va="center",
                color=tint,
                fontweight="bold",
            )
            if predicted is not None:
                ax.plot([predicted] * 2, [row - 0.42, row + 0.42], color=INK, lw=1.2, solid_capstyle="butt")
        ax.set(xlim=(0, 1.28 * longest), ylim=(models - 0.4, -0.6), xticks=[])
        ax.set_yticks(range(models), results.names)
        ax.tick_params(length=0)
        ax.spines["bottom"].set_visible(False)
        ax.set_title(panel.title)
    return figure


def _growth(results: Results) -> Figure | None:
    contexts = results.decode_contexts
    if len(contexts) < 2:
        return None
    figure = new_figure(WIDTH, 2.7)
    left, right = figure.subplots(1, 2)
    ends: dict[str, list[_End]] = {"ms_per_token": [], "state_bytes": []}
    for name in results.names:
        records = [record for record in (results.decode(name, context) for context in contexts) if record is not None]
        if not records:
            continue
        tint = colour(results, name)
        at = [record["context"] for record in records]
        for ax, key in ((left, "ms_per_token"), (right, "state_bytes")):
            ax.plot(at, [record[key] for record in records], color=tint, marker="o", ms=4, lw=1.8, clip_on=False)
            ends[key].append(_End(x=at[-1], y=records[-1][key], text=name, colour=tint))
        spread = [[record["ms_low"] for record in records], [record["ms_high"] for record in records]]
        left.fill_between(at, *spread, color=tint, alpha=0.2, lw=0)
        if all(record["predicted"] for record in records):
            right.plot(at, [record["predicted"]["state_bytes"] for record in records], color=INK, lw=1, ls=(0, (3, 3)))
    for ax, title in ((left, "ms per generated token"), (right, "bytes of cache")):
        if contexts[-1] > WIDEST_LINEAR * contexts[0]:
            ax.set(xscale="log", yscale="log")
        else:
            ax.set(xlim=(0, None), ylim=(0, None))
        ax.set_xticks(contexts, [f"{context:,}" for context in contexts])
        ax.minorticks_off()
        ax.set(xlabel="tokens read before", title=title)
        ax.grid(axis="y", color=INK, alpha=0.13, lw=0.6)
    right.yaxis.set_major_formatter(lambda value, _: data_size(value))
    _label_ends(left, ends["ms_per_token"])
    _label_ends(right, ends["state_bytes"])
    return figure
