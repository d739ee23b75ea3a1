"""The figures of a shuffle probe say what its records say."""

from __future__ import annotations

import pytest

from foveate.report.figures import COLOURS
from foveate.report.probe_plots import shuffle_plots


def records(boundaries) -> list[dict]:
    found = []
    for boundary in boundaries:
        D = 64 - boundary
        for condition, unit, worth in (("shuffle", "word", 1.0), ("replace", None, 2.0), ("truncate", None, 4.0)):
            nats = [worth / d for d in range(1, D + 1)]
            band = {"distance": list(range(1, D + 1)), "delta_nats": nats, "ci_low": nats, "ci_high": nats}
            found.append({"kind": "curve", "condition": condition, "unit": unit, "boundary": boundary} | band)
            found[-1]["binned"] = band
        horizons = {"order_horizon": 7, "order_horizon_ci": [5, 9], "topic_horizon": D, "topic_horizon_ci": [20, D]}
        found.append({"kind": "summary", "context": 64, "boundary": boundary, "unit": "word"} | horizons)
    return found


def test_curves_and_horizons_are_named() -> None:
    (plot,) = shuffle_plots(records([32]))
    assert plot.name == "shuffle"
    names = [plot.svg.index(f">{name}<") for name in ("no text", "other text", "words shuffled")]
    assert names == sorted(names), "in the order of the curves"
    assert ">order horizon 7 [5, 9]<" in plot.svg
    assert ">topic horizon ≥ 32 [20, ≥ 32]<" in plot.svg
    assert "the 32 tokens before the boundary" in plot.svg


def test_a_sweep_gets_a_map() -> None:
    curves, surface = shuffle_plots(records([16, 32, 48]))
    assert "the 32 tokens before the boundary" in curves.svg
    assert surface.name == "map"
    for text in ("words shuffled", "other text", "no text", "16", "32", "48"):
        assert f">{text}<" in surface.svg


@pytest.mark.parametrize("missing", ["order", "topic"])
def test_what_was_not_measured_is_left_out(missing) -> None:
    kept = records([32])
    kept[-1] |= {f"{missing}_horizon": None, f"{missing}_horizon_ci": None}
    (plot,) = shuffle_plots(kept)
    assert f"{missing} horizon" not in plot.svg
    assert "horizon" in plot.svg
    assert COLOURS[1] in plot.svg
