"""Two models compared word by word, as tables and lines for people. Made from the records of ``foveate probe rare``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from foveate.report.screen import new_table
from foveate.report.units import signed

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Record = dict[str, Any]

PARTS = {"between": "between words", "several": "words that a token joins", "text": "whole text"}


def cells(records: Sequence[Record], **wanted: Any) -> list[Record]:
    """The cells whose values are those ``wanted``, in order."""
    return [
        record
        for record in records
        if record["kind"] == "cell" and all(record[name] == value for name, value in wanted.items())
    ]


def range_text(given: Record) -> str:
    """``0``, ``1–9`` or ``10,000+``."""
    low, high = given["low"], given["high"]
    if high is None:
        return f"{low:,}+"
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def distance_text(given: Record) -> str:
    return "not in context" if given["high"] == 0 else f"{range_text(given)} back"


def rare_words(records: Sequence[Record]) -> Iterator[RenderableType]:
    """All of it: by training count, by distance, and the words that differ most."""
    head = records[0]
    [text] = cells(records, part="text")
    yield _by_count(records, head)
    yield from _notes(head, text)
    yield _by_distance(records)
    yield ""
    yield from _gains(records)


def _notes(head: Record, text: Record) -> Iterator[str]:
    a, b = head["a"], head["b"]
    difference = _with_interval(text["delta_bpb"], text["bpb_ci_low"], text["bpb_ci_high"], 4)
    yield f"\n{a} {head['bpb_a']:.4f} bits per byte, {b} {head['bpb_b']:.4f}, difference {difference}"
    known = text["ci_low"] is not None
    intervals = "In brackets 95% bootstrap intervals over" if known else "Too little text for intervals:"
    yield (
        f"Differences are {a} less {b}: above 0, {b} is better. {intervals} {head['units']:,} "
        f"{head['unit']}{'s' * (head['units'] != 1)} of {head['text_bytes']:,} bytes, context {head['context']:,}."
    )
    if head["left_out"]:
        yield f"{head['left_out']:,} pieces of text longer than a window were left out."
    yield ""


def _by_count(records: Sequence[Record], head: Record) -> Table:
    numbers = ("words", "different", head["a"], head["b"], "nats per word", "bits per byte")
    table = new_table("times in training", numbers)
    buckets = [cell for cell in cells(records, part="words", distance=None) if cell["train_count"] is not None]
    for cell in buckets:
        table.add_row(range_text(cell["train_count"]), *_row(cell))
    table.add_section()
    table.add_row("all words", *_row(cells(records, part="words", train_count=None, distance=None)[0]))
    for part, label in PARTS.items():
        for cell in cells(records, part=part):
            table.add_row(label, *_row(cell))
    return table


def _row(cell: Record) -> tuple[str, ...]:
    is_words = cell["part"] == "words"
    return (
        f"{cell['count']:,}" if is_words else "",
        f"{cell['distinct']:,}" if is_words else "",
        f"{cell['nats_a']:.3f}" if is_words else "",
        f"{cell['nats_b']:.3f}" if is_words else "",
        _with_interval(cell["delta_nats"], cell["ci_low"], cell["ci_high"], 3) if is_words else "",
        _with_interval(cell["delta_bpb"], cell["bpb_ci_low"], cell["bpb_ci_high"], 4),
    )


def _by_distance(records: Sequence[Record]) -> Table:
    """Empty where there are too few such words for an interval."""
    distances = [cell["distance"] for cell in cells(records, part="words", train_count=None) if cell["distance"]]
    table = new_table("times in training", map(distance_text, distances))
    buckets = [cell["train_count"] for cell in cells(records, part="words", distance=None)]
    for bucket in [*filter(None, buckets), None]:
        known = {distance_text(distance): "" for distance in distances}
        for cell in cells(records, part="words", train_count=bucket):
            if cell["distance"] and cell["ci_low"] is not None:
                shown = _with_interval(cell["delta_nats"], cell["ci_low"], cell["ci_high"], 2)
                known[distance_text(cell["distance"])] = shown
        if bucket is None:
            table.add_section()
        table.add_row("all words" if bucket is None else range_text(bucket), *known.values())
    return table


def _gains(records: Sequence[Record]) -> Iterator[str]:
    bucket = None
    for gain in (record for record in records if record["kind"] == "gain"):
        if gain["bucket"] != bucket:
            bucket = gain["bucket"]
            yield f"Most different words among those {range_text(bucket)} times in training, over all occurrences:"
        total, here = signed(gain["total_nats"], 1), signed(gain["here_nats"], 1)
        place = f"…{gain['before']}[{gain['here']}]{gain['after']}…"
        yield f"  {gain['better']} better: {gain['word']} ({total} nats in {gain['count']:,}), as in {place} ({here})"


def _with_interval(value: float, low: float | None, high: float | None, digits: int) -> str:
    interval = "" if low is None or high is None else f" [{signed(low, digits)}, {signed(high, digits)}]"
    return signed(value, digits) + interval
