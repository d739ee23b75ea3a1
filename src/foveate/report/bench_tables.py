"""What benchmarks print: a row for each measurement, from the records that ``--json`` writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from foveate.report.units import data_size, quantity

if TYPE_CHECKING:
    from rich.console import Group

Record = dict[str, Any]
Column = tuple[str, Callable[[Record], str]]


def decode_table(records: Sequence[Record]) -> Group:
    """Of ``foveate bench decode``."""
    first = records[0]
    title = (
        f"decoding {'ragged rows, ' if first['ragged'] else ''}{_compiled(first)}on {first['device']}, "
        f"{first['threads']} threads; "
        f"median (low–high) of {first['repeats']}, ratios to {first['against']} turn by turn"
    )
    columns: list[Column] = [
        ("walk", _name),
        ("context", lambda r: f"{r['context']:,}"),
        ("batch", lambda r: str(r["batch"])),
        ("dtype", lambda r: r["dtype"]),
        ("ms/token", lambda r: _spread(r["ms_per_token"], r["ms_low"], r["ms_high"])),
        ("ratio", _ratio),
        ("faster", lambda r: _maybe(r["ratio"], lambda ratio: f"{1 / ratio:.2f}x")),
        ("tokens/s", lambda r: quantity(r["tokens_per_s"])),
        ("state", lambda r: data_size(r["state_bytes"])),
        ("predicted", lambda r: _predicted(r, "state_bytes")),
        ("weights", lambda r: data_size(r["weight_bytes"])),
        ("reads", lambda r: _maybe(r["read_bytes"], data_size)),
        ("roofline", lambda r: _maybe(r["roofline_ms"], lambda ms: f"{ms:.3g} ms")),
        ("over", lambda r: _maybe(r["over_roofline"], lambda over: f"{over:.2f}x")),
        ("prompt/s", lambda r: _maybe(r["prefill_tokens_per_s"], quantity, "filled" if r["state_bytes"] else "")),
    ]
    return _table(title, columns, records)


def _compiled(record: Record) -> str:
    return "compiled, " if record.get("compiled") else ""


def profile_table(record: Record) -> Group:
    """Of ``foveate bench decode --profile``: the operations of a token that take longest."""
    found = record["profile"]
    title = (
        f"{_name(record)} at {record['context']:,}, batch {record['batch']}: {record['ms_per_token']:.2f} ms per "
        f"token, of which {100 * found['share_outside']:.0f}% outside matrix products; {found['calls']:.0f} operations"
    )
    operations = [{"operation": name, "ms": ms, "calls": calls} for name, (ms, calls) in found["longest"].items()]
    columns: list[Column] = [
        ("operation", lambda r: r["operation"]),
        ("ms/token", lambda r: f"{r['ms']:.3f}"),
        ("calls", lambda r: f"{r['calls']:.1f}"),
    ]
    return _table(title, columns, operations)


def train_table(records: Sequence[Record]) -> Group:
    """Of ``foveate bench train``."""
    first = records[0]
    title = (
        f"training {_compiled(first)}on {first['device']}, {first['threads']} threads; "
        f"median (low–high) of {first['steps']} steps, ratios to {first['against']} turn by turn"
    )
    columns: list[Column] = [
        ("walk", _name),
        ("context", lambda r: f"{r['context']:,}"),
        ("batch", lambda r: str(r["batch"])),
        ("dtype", lambda r: r["dtype"]),
        ("parameters", lambda r: quantity(r["params"])),
        (
            "tokens/s",
            lambda r: _spread(r["train_tokens_per_s"], r["tokens_per_s_low"], r["tokens_per_s_high"], quantity),
        ),
        ("ratio", _ratio),
        ("FLOPs/token", lambda r: _predicted(r, "train_flops_per_token", quantity)),
        ("peak FLOP/s", lambda r: _maybe(r["peak_flops_per_s"], quantity)),
        ("MFU", lambda r: _maybe(r["mfu"], lambda mfu: f"{100 * mfu:.0f}%")),
    ]
    return _table(title, columns, records)


def serve_table(records: Sequence[Record]) -> Group:
    """Of ``foveate bench serve``."""
    first = records[0]
    title = (
        f"{first['streams']} streams of {first['tokens']} tokens after about {first['prompt']} on {first['device']}, "
        f"{first['threads']} threads; median (low–high) of {first['repeats']}, the ratio turn by turn"
    )
    columns: list[Column] = [
        ("walk", _name),
        ("dtype", lambda r: r["dtype"]),
        ("weights", lambda r: data_size(r["weight_bytes"])),
        ("tokens/s", lambda r: _spread(r["together_per_s"], r["together_low"], r["together_high"], quantity)),
        ("one by one", lambda r: _spread(r["apart_per_s"], r["apart_low"], r["apart_high"], quantity)),
        ("ratio", _ratio),
        ("first token", lambda r: f"{r['first_ms']:.0f} ms"),
        ("one by one", lambda r: f"{r['first_ms_apart']:.0f} ms"),
    ]
    return _table(title, columns, records)


def memory_table(records: Sequence[Record]) -> Group:
    """Of ``foveate bench memory``."""
    first = records[0]
    title = f"memory on {first['device']}; ratios to {first['against']}"
    columns: list[Column] = [
        ("walk", _name),
        ("context", lambda r: f"{r['context']:,}"),
        ("batch", lambda r: str(r["batch"])),
        ("dtype", lambda r: r["dtype"]),
        ("saved", lambda r: data_size(r["saved_bytes"])),
        ("predicted", lambda r: _predicted(r, "saved_bytes")),
        ("ratio", lambda r: _maybe(r["saved_ratio"], "{:.3f}".format)),
        ("training", lambda r: data_size(r["training_state_bytes"])),
        ("peak", lambda r: _maybe(r["peak_bytes"], data_size)),
        ("predicted", lambda r: _predicted(r, "training_bytes")),
        ("ratio", lambda r: _maybe(r["peak_ratio"], "{:.3f}".format)),
        ("cache", lambda r: _maybe(r["state_bytes"], data_size)),
        ("predicted", lambda r: _predicted(r, "state_bytes")),
        ("ratio", lambda r: _maybe(r["state_ratio"], "{:.3f}".format)),
    ]
    return _table(title, columns, records)


def _name(record: Record) -> str:
    return record["walk"] or record["name"]


def _spread(median: float, low: float, high: float, show: Callable[[float], str] = "{:.2f}".format) -> str:
    return f"{show(median)} ({show(low)}–{show(high)})"


def _ratio(record: Record) -> str:
    return "" if record["ratio"] is None else _spread(record["ratio"], record["ratio_low"], record["ratio_high"])


def _maybe(value: float | None, show: Callable[[float], str], missing: str = "") -> str:
    return missing if value is None else show(value)


def _predicted(record: Record, key: str, show: Callable[[float], str] = data_size) -> str:
    return show(record["predicted"][key]) if record["predicted"] else ""


def _table(title: str, columns: Sequence[Column], records: Sequence[Record]) -> Group:
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    cells = [[show(record) for _, show in columns] for record in records]
    kept = [at for at in range(len(columns)) if any(row[at] for row in cells)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for at in kept:
        table.add_column(columns[at][0], justify="left" if at == 0 else "right", no_wrap=True)
    for row in cells:
        table.add_row(*(escape(row[at]) for at in kept))
    return Group(escape(title), table)  # not the table's own title, which would be broken at its width
