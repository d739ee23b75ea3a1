"""Rare words as tables and figures: what is shown, what is left out, and in which colour."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from foveate.report.rare_plots import A_COLOUR, B_COLOUR, UNDECIDED, rare_plots
from foveate.report.rare_tables import rare_words

HEAD = {
    "kind": "rare_words",
    "a": "plain[1]",
    "b": "coarse",
    "bpb_a": 2.5,
    "bpb_b": 2.25,
    "text_bytes": 12_000,
    "context": 64,
    "unit": "window",
    "units": 40,
    "left_out": 3,
}


def cell(part="words", train_count=None, distance=None, delta=0.25, interval=(0.125, 0.5)):
    low, high = interval
    return {
        "kind": "cell",
        "part": part,
        "train_count": train_count,
        "distance": distance,
        "count": 1234,
        "distinct": 56,
        "nats_a": 9.0,
        "nats_b": 9.0 - delta,
        "delta_nats": delta,
        "ci_low": low,
        "ci_high": high,
        "delta_bpb": delta,
        "bpb_ci_low": low,
        "bpb_ci_high": high,
    }


def span(low, high):
    return {"low": low, "high": high}


NEVER, OFTEN, NEW, AGAIN = span(0, 0), span(1, None), span(0, 0), span(1, None)
RECORDS = [
    HEAD,
    cell("text"),
    cell("between", delta=0.0625, interval=(-0.125, 0.25)),
    cell(),
    cell(distance=NEW),
    cell(distance=AGAIN),
    cell(train_count=NEVER, delta=-0.75, interval=(-1, -0.5)),
    cell(train_count=NEVER, distance=NEW, delta=-0.625, interval=(None, None)),
    cell(train_count=OFTEN),
    cell(train_count=OFTEN, distance=NEW),
    {
        "kind": "gain",
        "bucket": NEVER,
        "better": "plain[1]",
        "word": "noddy",
        "count": 9,
        "total_nats": -54.4,
        "before": "observed ",
        "here": "Noddy",
        "after": ".",
        "here_nats": -8.2,
    },
]


def _print(records: list[dict], out: StringIO) -> None:
    console = Console(file=out, highlight=False, width=140)
    for part in rare_words(records):
        console.print(part, markup=False, soft_wrap=isinstance(part, str))


def printed() -> list[str]:
    out = StringIO()
    _print(RECORDS, out)
    return out.getvalue().splitlines()


def row(first: str, lines: list[str]) -> list[str]:
    return next(line for line in lines if line.startswith(first)).split()


def test_the_tables() -> None:
    by_count, notes, by_distance = printed()[:9], printed()[9:14], printed()[14:]
    assert row("0 ", by_count) == [
        *("0", "1,234", "56", "9.000", "9.750", "−0.750", "[−1.000,", "−0.500]", "−0.7500", "[−1.0000,", "−0.5000]"),
    ]
    assert row("between words", by_count) == ["between", "words", "+0.0625", "[−0.1250,", "+0.2500]"]
    assert "plain[1] 2.5000 bits per byte, coarse 2.2500, difference +0.2500 [+0.1250, +0.5000]" in notes
    assert any("above 0, coarse is better" in line and "40 windows of 12,000 bytes" in line for line in notes)
    assert "3 pieces of text longer than a window were left out." in notes
    assert row("0", by_distance) == ["0"]  # one cell without an interval, one that is not there
    assert row("1+", by_distance) == ["1+", "+0.25", "[+0.12,", "+0.50]"]
    assert by_distance[-1] == "  plain[1] better: noddy (−54.4 nats in 9), as in …observed [Noddy].… (−8.2)"


def test_too_little_text_is_said() -> None:
    out = StringIO()
    few = [HEAD | {"units": 1}, *RECORDS[1:], cell("text", interval=(None, None))]
    few.remove(RECORDS[1])
    _print(few, out)
    assert "Too little text for intervals: 1 window of 12,000 bytes" in out.getvalue()


def test_colours_say_which_is_better() -> None:
    by_count, by_distance = rare_plots(RECORDS)
    assert all(colour in by_count.svg for colour in (A_COLOUR, B_COLOUR, UNDECIDED))
    assert "coarse better" in by_count.svg
    assert B_COLOUR in by_distance.svg
    assert A_COLOUR not in by_distance.svg
    assert all(plot.png.startswith(b"\x89PNG") for plot in (by_count, by_distance))
