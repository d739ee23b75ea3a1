"""A single run's curve, and what to mind where runs were not trained alike."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from foveate.report.learning import LINES, cautions, print_learning
from foveate.report.page import page
from foveate.report.results import Results
from foveate.report.tables import print_table
from foveate.report.units import unbroken


def printed(show, results: Results, width: int) -> str:
    file = io.StringIO()
    show(results, Console(file=file, width=width))
    return file.getvalue()


def test_a_curve_is_listed_from_its_first_point_to_its_last() -> None:
    tokens = [1000 * at for at in range(1, 101)]
    line = {"tokens": tokens, "seconds": [at / 10 for at in range(100)], "bpb": [4 - at / 100 for at in range(100)]}
    loss = {"tokens": tokens, "seconds": line["seconds"], "loss": [7.0] * 100}
    text = printed(print_learning, Results([{"kind": "curve", "name": "a", "train": loss, "valid": line}]), 100)
    assert "bits per byte, held out" in text
    values = re.findall(r"(\S+) tokens +(\d+) s +(\S+)", text)
    assert len(values) == LINES
    assert (values[0], values[-1]) == (("1k", "0", "4.0000"), ("100k", "10", "3.0100"))
    empty = {"tokens": [], "seconds": [], "bpb": []}
    unvalidated = Results([{"kind": "curve", "name": "a", "train": loss, "valid": empty}])
    assert "training loss, nats per token" in printed(print_learning, unvalidated, 100)


def test_runs_that_were_not_trained_alike_are_told_of(results: Results) -> None:
    assert cautions(results) == [], "llama's training is not known"
    model = results.one("model", results.names[1])
    model["trained_tokens"] = 2_000_000
    [said] = cautions(results)
    assert said.startswith(
        "Caution: the runs were not trained on equally many tokens (plain <8> on 1M, multi & scale on 2M)"
    )
    model["settings"] = model["settings"] | {"data": ["a.txt", "b.txt"]}
    assert "(plain <8> on books, multi & scale on a.txt b.txt)" in cautions(results)[1]


@pytest.mark.parametrize("width", [60, 80, 110])
def test_numbers_stay_with_their_units_on_a_narrow_terminal(results: Results, width: int) -> None:
    narrow, wide = printed(print_table, results, width), printed(print_table, results, 300)
    numbers = re.findall(r"[\d.]+ [kM]?B\b|\d+ min \d+ s|[−+]0\.\d{4}|\d\.\d\dx", wide)
    assert len(numbers) > 10
    assert sorted(re.findall(r"[\d.]+ [kM]?B\b|\d+ min \d+ s|[−+]0\.\d{4}|\d\.\d\dx", narrow)) == sorted(numbers)


def test_numbers_stay_with_their_units_on_a_page(results: Results) -> None:
    assert unbroken("137 MB, 4 min 10 s, 1@1 16@4, 5 %") == "137\u00a0MB, 4\u00a0min 10\u00a0s, 1@1 16@4, 5\u00a0%"
    assert "<td>137\u00a0MB</td>" in page(results, [], title="x")
