"""What ``foveate check`` found: a table for one model, a matrix for several, and a page of either."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.files import write_atomically
from foveate.report.files import PAGE_FILE, RESULTS_FILE, check_folder
from foveate.report.page import CSS
from foveate.report.results import Record
from foveate.report.units import duration, quantity

if TYPE_CHECKING:
    from rich.console import Console

MARKS = {"kept": "✓", "broken": "✗", "not offered": "–"}
STYLES = {"kept": "green", "broken": "bold red", "not offered": "dim"}
COLUMNS = ("promise", "", "worst", "allowed", "from this layer on", "seen with", "seconds")
MORE_CSS = ".broken { color: #cf222e; font-weight: 600 } .missing { color: var(--quiet) } code { font-size: .85rem }"


def headline(records: Sequence[Record]) -> str:
    """One sentence on a model."""
    about = records[0]
    of, missing = about["kept"] + about["broken"], about["not_offered"]
    what = f"all {of} promises kept" if not about["broken"] else f"{about['broken']} of {of} promises broken"
    return f"{about['model']}: {what}{f', {missing} not offered' if missing else ''}."


def about_model(records: Sequence[Record]) -> str:
    """What was checked, on what, for how long."""
    about = records[0]
    size = f"{about['kind']}, {quantity(about['parameters'])} parameters"
    return f"{size}, {about['dtype']} on {about['device']}, {duration(about['seconds'])}"


def _cells(finding: Record) -> tuple[str, ...]:
    state = finding["state"]
    if state == "not offered":
        return (finding["name"], f"{MARKS[state]} {state}", "", "", finding["note"], "", f"{finding['seconds']:.1f}")
    raised = state == "broken" and finding["worst"] is None
    worst = "raises" if raised else _number(finding["worst"])
    where = finding["layer"] or finding["note"]
    seen = f"{finding['rows']} x {finding['length']}" if state == "broken" else ""
    return (
        finding["name"],
        f"{MARKS[state]} {state}",
        worst,
        _number(finding["allowed"]),
        where,
        seen,
        f"{finding['seconds']:.1f}",
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return "0" if value == 0 else f"{value:.2g}"


def print_promises(records: Sequence[Record], console: Console) -> None:
    """The table of one model."""
    from rich import box
    from rich.markup import escape as plain
    from rich.table import Table

    console.print(plain(about_model(records)))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for column in COLUMNS:
        numeric = column in ("worst", "allowed", "seconds")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    group = ""
    for finding in records[1:]:
        if finding["group"] != group:
            group = finding["group"]
            table.add_section()
            table.add_row(f"[bold]{plain(group)}")
        name, state, *rest = map(plain, _cells(finding))
        table.add_row(name, f"[{STYLES[finding['state']]}]{state}", *rest)
    console.print(table)


def print_matrix(models: Sequence[Sequence[Record]], console: Console) -> None:
    """Several models, a row each, a column for each promise; the columns are numbered, and named below."""
    from rich import box
    from rich.markup import escape as plain
    from rich.table import Table

    names = [finding["name"] for finding in models[0][1:]]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    for place in range(len(names)):
        table.add_column(str(place + 1), justify="center", no_wrap=True)
    for records in models:
        marks = [f"[{STYLES[finding['state']]}]{MARKS[finding['state']]}" for finding in records[1:]]
        table.add_row(plain(records[0]["model"]), *marks)
    console.print(table)
    console.print(plain("  ".join(f"{place + 1} {name}" for place, name in enumerate(names))))
    console.print(plain("  ".join(f"{mark} {state}" for state, mark in MARKS.items())))


def write_page(records: Sequence[Record], folder: Path, *, command: str) -> Path:
    """Write ``index.html`` and ``results.jsonl`` into a folder.

    Raises:
        FoveateError: the folder cannot be written.
    """
    check_folder(folder)
    write_atomically(folder / RESULTS_FILE, "".join(json.dumps(record) + "\n" for record in records))
    write_atomically(folder / PAGE_FILE, page(records, command=command))
    return folder / PAGE_FILE


def page(records: Sequence[Record], *, command: str) -> str:
    """The HTML of all models' findings."""
    models: list[list[Record]] = []
    for record in records:
        if record["record"] == "model":
            models.append([])
        models[-1].append(record)
    title = "Promises of " + ", ".join(model[0]["model"] for model in models)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{CSS}{MORE_CSS}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *(f'<p class="headline">{escape(headline(model))}</p>' for model in models),
            *map(_section, models),
            "<h2>How a fault is told from rounding</h2>",
            "<p>Two computations that must agree are held against one another. What rounding may do is measured on the "
            "model itself: it computes the same in another order, every result moved within its last digit. What is "
            "several times as far off, in this dtype and in the next finer one, is a fault. The input is the shortest "
            "found to show it; the layer is the innermost that is given the same and gives something else.</p>",
            f"<h2>To repeat it</h2><pre>{escape(command)}</pre>",
            "</body></html>",
            "",
        ]
    )


def _section(model: Sequence[Record]) -> str:
    about = model[0]
    parts = [f"<h2>{escape(about['model'])}</h2>", f'<p class="quiet">{escape(about_model(model))}</p>']
    parts.append('<div class="scroll"><table><thead><tr>')
    parts += [f"<th>{escape(column)}</th>" for column in COLUMNS]
    parts.append("</tr></thead><tbody>")
    group = ""
    for finding in model[1:]:
        if finding["group"] != group:
            group = finding["group"]
            parts.append(f'<tr><th colspan="{len(COLUMNS)}">{escape(group)}</th></tr>')
        name, *cells = _cells(finding)
        kind = {"broken": ' class="broken"', "not offered": ' class="missing"'}.get(finding["state"], "")
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        parts.append(f"<tr{kind}><td>{escape(name)}<small>{escape(finding['says'])}</small></td>{row}</tr>")
    parts.append("</tbody></table></div>")
    for finding in model[1:]:
        if finding["state"] == "broken":
            parts.append(f"<p>{escape(finding['name'])}: <code>{escape(finding['input'])}</code></p>")
    return "".join(parts)
