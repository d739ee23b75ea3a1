"""Figures of how costs grow with the context."""

from __future__ import annotations

import pytest

from foveate.report.growth_plots import growth_plots


def record(name: str, context: int, **more) -> dict:
    times = {"ms_per_token": 1.0, "ms_low": 0.9, "ms_high": 1.2, "saved_bytes": 5000 * context}
    predicted = {"state_bytes": 900 * context} if name != "llama" else None
    return {
        "name": name, "context": context, "batch": 1, "dtype": "float32",
        "state_bytes": 1000 * context, "predicted": predicted, **times, **more,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["decode", "memory"])
def test_every_batch_and_dtype_is_a_figure(kind) -> None:
    records = [
        record(name, context, batch=batch) for name in ("2@1", "llama") for context in (512, 65536) for batch in (1, 4)
    ]
    plots = list(growth_plots(kind, records))
    assert [plot.name for plot in plots] == [f"{kind}-batch1-float32", f"{kind}-batch4-float32"]
    for plot in plots:
        assert plot.svg.startswith("<svg")
        assert plot.png.startswith(b"\x89PNG")
        assert all(text in plot.svg for text in (">2@1<", ">llama<", ">512<", ">64k<"))


def test_one_context_is_no_growth() -> None:
    assert list(growth_plots("decode", [record("2@1", 512)])) == []


def test_what_keeps_no_state_has_no_line_of_it() -> None:
    records = [record("2@1", n, state_bytes=0, predicted=None) for n in (512, 1024)]
    [plot] = growth_plots("decode", records)
    assert ">none<" in plot.svg
