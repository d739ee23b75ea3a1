"""A comparison as a table: a row for each thing measured, a column for each model; and in one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foveate.report.results import Record, Results
from foveate.report.units import data_size, duration, quantity, ratio, signed

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is shown of one model: a value, and how it relates to the first model's."""

    text: str = ""
    relation: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing measured; ``help`` says how, ``better`` which way is good, or neither."""

    section: str
    label: str
    help: str
    cells: tuple[Cell, ...]
    better: str = ""


def rows(results: Results) -> list[Row]:
    """The whole table, without the rows that nothing is known for."""
    found = [*_model_rows(results), *_quality_rows(results), *_training_rows(results), *_decoding_rows(results)]
    return [row for row in found if any(cell.text for cell in row.cells)]


def _row(
    results: Results,
    section: str,
    label: str,
    help: str,
    value: Callable[[str], float | None],
    show: Callable[[float], str],
    better: str = "",
) -> Row:
    """A row of numbers, each related to the first model's where one way is better."""
    values = [value(name) for name in results.names]
    first = values[0]
    cells = []
    for number in values:
        if number is None:
            cells.append(Cell())
        else:
            related = better and first is not None and len(cells) > 0
            cells.append(Cell(text=show(number), relation=ratio(number, first or 0) if related else ""))
    return Row(section=section, label=label, help=help, cells=tuple(cells), better=better)


def _of(results: Results, kind: str, key: str) -> Callable[[str], float | None]:
    def value(name: str) -> float | None:
        record = results.one(kind, name)
        return None if record is None else record[key]

    return value


def _texts(results: Results, section: str, label: str, help: str, text: Callable[[str], str]) -> Row:
    cells = tuple(Cell(text=text(name)) for name in results.names)
    return Row(section=section, label=label, help=help, cells=cells)


def _model_rows(results: Results) -> Iterator[Row]:
    models = {name: results.one("model", name) or {} for name in results.names}
    section = "model"
    yield _texts(
        results,
        section,
        "walk",
        "layers@stride, in order; a layer of stride k runs once every k tokens",
        lambda name: models[name]["walk"] or models[name]["model_type"],
    )
    yield _row(results, section, "layers", "in all", _of(results, "model", "layers"), lambda n: f"{n:,}")
    help = "on average; the work of a plain model of so many layers"
    yield _row(
        results, section, "layers run per token", help, _of(results, "model", "layer_runs_per_token"), "{:.4g}".format
    )
    yield _row(results, section, "width", "of the token level", _of(results, "model", "width"), lambda n: f"{n:,}")
    yield _row(results, section, "parameters", "a tied embedding once", _of(results, "model", "params"), quantity)


def _quality_rows(results: Results) -> Iterator[Row]:
    section = "quality"
    bpb = _of(results, "quality", "bpb")
    yield _row(results, section, "bits per byte", "of held-out text", bpb, "{:.4f}".format)

    def compared(name: str) -> str:
        record = results.one("difference", name)
        return "" if record is None else f"{signed(record['bpb'])}{interval(record)}"

    first = results.names[0]
    yield _texts(
        results, section, f"less those of {first}", "paired on the same text, with a 95% bootstrap interval", compared
    )
    tokens = {record["tokens"] for record in results.all("quality")}
    if len(tokens) > 1:
        yield _row(
            results, section, "bytes per token", "of that text", lambda n: _bytes_per_token(results, n), "{:.3f}".format
        )


def interval(record: Record) -> str:
    return "" if record["low"] is None else f" [{signed(record['low'])}, {signed(record['high'])}]"


def _bytes_per_token(results: Results, name: str) -> float | None:
    record = results.one("quality", name)
    return None if record is None else record["bytes"] / record["tokens"]


def _training_rows(results: Results) -> Iterator[Row]:
    memory = results.one("training_memory")
    section = "training" if memory is None else f"training, {memory['batch']} x {memory['context']:,} tokens a step"
    kept, predicted = (_of(results, "training_memory", key) for key in ("kept_bytes", "predicted_kept_bytes"))
    yield _row(results, section, "kept for backward", "exact, beside parameters", kept, data_size, "lower")
    yield _row(results, section, "  as predicted", "from the walk alone", predicted, data_size)
    state = _of(results, "training_memory", "state_bytes")
    yield _row(results, section, "weights, gradients, Adam", "in fp32", state, data_size, "lower")
    peak = _of(results, "training_memory", "peak_bytes")
    yield _row(results, section, "peak of a step", "all tensors at once", peak, data_size, "lower")
    speed = _of(results, "training_speed", "train_tokens_per_s")
    yield _row(results, section, "tokens per second", "a step of each in turn", speed, quantity, "higher")
    trained = [_of(results, "model", key) for key in ("trained_tokens", "trained_seconds")]
    yield _row(results, section, "trained on tokens", "", trained[0], quantity)
    yield _row(
        results, section, "training took", "validations included, the machine as busy as it was", trained[1], duration
    )


def _decoding_rows(results: Results) -> Iterator[Row]:
    for context in results.decode_contexts:

        def of(key: str, context: int = context) -> Callable[[str], float | None]:
            return lambda name: (results.decode(name, context) or {}).get(key)

        def predicted(name: str, context: int = context) -> float | None:
            record = results.decode(name, context)
            return (record["predicted"] or {}).get("state_bytes") if record is not None else None

        section = f"decoding after {context:,} tokens"
        yield _row(results, section, "ms per token", "batch 1, fp32", of("ms_per_token"), "{:.3g}".format, "lower")
        yield _row(results, section, "cache", "as allocated", of("state_bytes"), data_size, "lower")
        yield _row(results, section, "  as predicted", "what has to be kept", predicted, data_size)


def headline(results: Results) -> list[str]:
    """One sentence on each model but the first."""
    return [_sentence(results, name) for name in results.names[1:]]


def _sentence(results: Results, name: str) -> str:
    first = results.names[0]
    mine, others = results.one("model", name), results.one("model", first)
    assert mine is not None
    assert others is not None
    facts = [f"{mine['layers']} layers against {others['layers']}"]
    measured = (
        ("training_memory", "kept_bytes", "of the memory kept for backward"),
        ("training_memory", "peak_bytes", "of the peak training memory"),
        ("training_speed", "train_tokens_per_s", "the training speed"),
    )
    for kind, key, what in measured:
        value, reference = (_of(results, kind, key)(who) for who in (name, first))
        if value is not None and reference:
            facts.append(f"{ratio(value, reference)} {what}")
    for context in results.decode_contexts[:1]:
        a, b = results.decode(name, context), results.decode(first, context)
        if a is not None and b is not None:
            facts.append(f"{ratio(a['ms_per_token'], b['ms_per_token'])} the time per generated token")
            facts.append(f"{ratio(a['state_bytes'], b['state_bytes'])} the cache")
    if (compared := results.one("difference", name)) is not None:
        word = "better" if compared["bpb"] < 0 else "worse"
        facts.append(f"{abs(compared['bpb']):.3f} bits per byte {word}{_doubt(compared)}")
    return f"{name}: {', '.join(facts)}."


def _doubt(compared: Record) -> str:
    """Nothing where the interval leaves no doubt of the sign."""
    if compared["low"] is None:
        return " (too little text to say how surely)"
    return " (not clearly: the interval holds 0)" if compared["low"] <= 0 <= compared["high"] else ""


def _widest(cells: Iterable[str]) -> int:
    """The width that a column needs so that walks and intervals may be broken, but no number from its unit."""
    pieces = (piece for cell in cells for piece in re.split(r" (?=\[|\d+@)|(?<=,) ", cell))
    return max(map(len, pieces), default=0)


def print_table(results: Results, console: Console) -> None:
    """The table on a terminal or into a log."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    listed = rows(results)
    for at, name in enumerate(results.names):
        texts, relations = zip(*((row.cells[at].text, row.cells[at].relation) for row in listed), strict=True)
        table.add_column(escape(name), justify="right", overflow="fold", min_width=_widest(texts))
        if at:
            table.add_column("", min_width=_widest(relations))
    section = "model"
    for row in listed:
        if row.section != section:
            section = row.section
            table.add_section()
            table.add_row(f"[bold]{escape(section)}")
        arrow = {"lower": " ↓", "higher": " ↑"}.get(row.better, "")
        cells = [text for cell in row.cells for text in (cell.text, cell.relation)]
        del cells[1]  # the first model is not related to itself
        table.add_row(escape(row.label + arrow), *map(escape, cells))
    console.print(table, crop=False)  # wider than a narrow terminal rather than without its last columns
