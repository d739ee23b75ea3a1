"""The figures and the page: complete, escaped, self-contained, legible on light and on dark."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from foveate.errors import FoveateError
from foveate.report.figures import COLOURS, INK
from foveate.report.files import check_folder, write_report
from foveate.report.page import page
from foveate.report.plots import colour, plots
from foveate.report.results import Results

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Checker(HTMLParser):
    """Collects text and links, and sees that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.words.append(data)


def read(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_every_figure_is_drawn_and_labelled_where_things_are(results) -> None:
    drawn = {plot.name: plot for plot in plots(results)}
    assert list(drawn) == ["walks", "learning", "costs", "growth"]
    for plot in drawn.values():
        assert plot.png.startswith(b"\x89PNG")
        assert plot.svg.count(INK) == 1, "of the style sheet; else ink is the text colour of the page"
        assert "currentColor" in plot.svg
        shown = " ".join(texts(plot.svg))
        names = results.names[:2] if plot.name == "learning" else results.names
        assert all(name in shown for name in names), plot.name
    assert {"137 MB", "97 MB", "2.260"} <= set(texts(drawn["costs"].svg))
    assert "multi & scale 2.280" in texts(drawn["learning"].svg)
    assert {"512", "8,192"} <= set(texts(drawn["growth"].svg))
    # a cell of a walk is a rectangle of its model's colour
    assert drawn["walks"].svg.count(f"fill: {COLOURS[1]}") >= 17


def test_figures_with_nothing_to_show_are_left_out(two_untrained) -> None:
    assert [plot.name for plot in plots(two_untrained)] == ["walks", "costs"]


def test_a_curve_without_validation_shows_the_training_loss(results) -> None:
    for curve in results.all("curve"):
        curve["valid"] = {"tokens": [], "seconds": [], "bpb": []}
    learning = next(plot for plot in plots(results) if plot.name == "learning")
    assert "training loss, nats per token" in texts(learning.svg)


def test_very_long_contexts_are_drawn_on_logarithmic_axes(results) -> None:
    for record in results.all("decode"):
        record["context"] = {512: 1024, 8192: 1 << 20}[record["context"]]
    growth = next(plot for plot in plots(results) if plot.name == "growth")
    assert "1,048,576" in texts(growth.svg)


def test_colours_outlast_any_number_of_models() -> None:
    many = Results([{"kind": "model", "name": str(i)} for i in range(14)])
    tints = [colour(many, name) for name in many.names]
    assert tints.count(COLOURS[0]) == 1, "grey is for the first alone"
    assert set(tints) == set(COLOURS)


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(results) -> None:
    checked = read(
        page(results, plots(results), title="This & that", commands=["foveate demo --out 'my demo'"], notes=["A & B"])
    )
    assert all(link.startswith("#") for link in checked.links)
    text = re.sub(r"\s+", " ", "".join(checked.words))
    for expected in (
        "This & that",
        "A & B",
        "multi & scale: 17 layers against 8",
        "plain <8>",
        "The <captain> & his ship",
        "books <held out>",
        "foveate demo --out 'my demo' foveate train --walk 0 foveate train --walk 1",
        "bootstrap over the 98 windows",
        "A Processor, 2 cores, 2 threads used, load 0.5",
        "and share: lr 0.003, data books.",
    ):
        assert expected in text, expected


def test_a_page_of_little_is_whole_too(two_untrained) -> None:
    text = "".join(read(page(two_untrained, plots(two_untrained), title="Two")).words)
    assert "What they write" not in text
    assert "Learning" not in text


def test_a_report_is_written_and_written_again(two_untrained, tmp_path) -> None:
    folder = tmp_path / "new" / "report"
    found = write_report(two_untrained, folder, title="One")
    assert found == folder / "index.html"
    names = {f"{name}.{ending}" for name in ("walks", "costs") for ending in ("svg", "png")}
    assert {path.name for path in folder.iterdir()} == {*names, "index.html", "results.jsonl"}
    assert Results.parse((folder / "results.jsonl").read_text()).records == two_untrained.records
    write_report(two_untrained, folder, title="Two")
    assert "<title>Two</title>" in found.read_text()


def test_a_folder_that_cannot_be_one(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("file", "file/under"):
        with pytest.raises(FoveateError, match="cannot be used as a folder"):
            check_folder(tmp_path / name)
