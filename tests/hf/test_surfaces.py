"""The table of surfaces and arguments in docs/huggingface.md is what calling them shows."""

from __future__ import annotations

import pytest
import torch

from hf import surfaces

ROWS = [(surface, argument) for surface, cases in surfaces.SURFACES.items() for argument in cases]


@pytest.mark.parametrize(("surface", "argument"), ROWS, ids=lambda name: name.replace("`", ""))
def test_the_page_says_what_is_done_and_what_is_refused(surface: str, argument: str) -> None:
    row = f"| {surface} | {argument} | {surfaces.outcome(surfaces.SURFACES[surface][argument])} |"
    page = surfaces.PAGE.read_text(encoding="utf-8")
    assert row in page.splitlines(), "to write the page anew: PYTHONPATH=src:tests python -m hf.surfaces"


def test_the_page_has_no_other_rows() -> None:
    made = surfaces.PAGE.read_text(encoding="utf-8").partition(surfaces.BEGIN)[2].partition(surfaces.END)[0]
    listed = [tuple(line.strip("|").split(" | ")[:2]) for line in made.strip().splitlines()[2:]]
    assert [(surface.strip(), argument) for surface, argument in listed] == ROWS


def test_what_is_taken_and_not_done_is_found() -> None:
    with pytest.raises(AssertionError):
        surfaces.outcome(lambda: (torch.zeros(2), torch.ones(2)))
