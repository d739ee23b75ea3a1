"""What stands beside the lines of a figure, read from the figure itself: intervals, labels, predictions."""

from __future__ import annotations

import pytest

from foveate.report.figures import new_figure
from foveate.report.growth_plots import _lines
from foveate.report.plots import LABEL_HEIGHT, _costs, _End, _growth, _label_ends
from foveate.report.probe_plots import _mark_horizon
from foveate.report.rare_plots import _by_count, _by_distance
from foveate.report.rare_tables import distance_text
from foveate.report.results import Results
from report.conftest import NAMES, records
from report.test_rare import HEAD, NEVER, NEW, OFTEN, cell


def test_a_horizon_is_a_point_on_its_interval() -> None:
    ax = new_figure(4, 3).subplots()
    summary = {"context": 64, "boundary": 32, "order_horizon": 7, "order_horizon_ci": [5, 9]}
    _mark_horizon(ax, summary, "order", "black", 0.9)
    assert [list(line.get_xdata()) for line in ax.lines] == [[5, 9], [7]]


def test_labels_stand_at_the_last_value_and_apart_from_each_other() -> None:
    ax = new_figure(4, 3).subplots()
    ax.set(xlim=(0, 1000), ylim=(0, 10))
    places = {"low": (1000, 5.0), "same": (1000, 5.0), "near": (980, 5.1), "away": (300, 5.2)}
    _label_ends(ax, [_End(x=x, y=y, text=name, colour="black") for name, (x, y) in places.items()])
    height = {label.get_text(): label.xy[1] for label in ax.texts}
    assert height["low"] == 5
    assert height["same"] == pytest.approx(5 + 10 * LABEL_HEIGHT)
    assert height["near"] == pytest.approx(5 + 20 * LABEL_HEIGHT)
    assert height["away"] == 5.2


def test_growth_is_labelled_at_the_longest_context() -> None:
    more = [record | {"context": 32768, "ms_per_token": 9.0} for record in records() if record.get("context") == 8192]
    figure = _growth(Results([*records(), *more]))
    for label in figure.axes[0].texts:
        assert label.xy[0] == 32768
        assert label.xy[1] >= 9


def test_predictions_are_marked_on_their_bars(results: Results) -> None:
    kept = next(ax for ax in _costs(results).axes if ax.get_title() == "kept for backward")
    assert [list(line.get_xdata()) for line in kept.lines] == [[136e6] * 2, [96e6] * 2]
    assert len(NAMES) == 3, "nothing is predicted of the third"


def test_an_axis_of_bytes_counts_bytes() -> None:
    ax = new_figure(4, 3).subplots()
    points = [{"name": "2@1", "context": n, "state_bytes": 1000 * n, "predicted": None} for n in (512, 1024)]
    _lines(ax, points, "state_bytes", "cache", "{:.0f} of them".format)
    assert ax.yaxis.get_major_formatter()(5.0, 0) == "5 of them"


def test_every_bucket_has_its_room() -> None:
    buckets = [{"low": n, "high": n} for n in range(9)]
    few, many = ([HEAD, *(cell(train_count=b) for b in buckets[:n])] for n in (1, 9))
    assert _by_count(many).get_figheight() - _by_count(few).get_figheight() == pytest.approx(8 * 0.34)


def test_one_bucket_is_a_figure_too() -> None:
    shown = [HEAD, cell(distance=NEW), cell(train_count=OFTEN), cell(train_count=OFTEN, distance=NEW)]
    [ax] = _by_distance(shown).axes
    assert ax.get_title() == "1+× in training"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["not in\ncontext"]


def test_distances_in_words() -> None:
    assert distance_text(NEVER) == "not in context"
    assert distance_text({"low": 10, "high": 99}).endswith(" back")
