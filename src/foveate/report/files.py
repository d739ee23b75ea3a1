"""A comparison's report on disk: the page, its figures, and the records it was made of."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from foveate.errors import FoveateError
from foveate.files import write_atomically
from foveate.report.figures import Plot
from foveate.report.page import page, probe_page
from foveate.report.plots import plots
from foveate.report.results import Record, Results

PAGE_FILE = "index.html"
RESULTS_FILE = "results.jsonl"


def write_report(
    results: Results, folder: Path, *, title: str, commands: Sequence[str] = (), notes: Sequence[str] = ()
) -> Path:
    """Write ``index.html``, ``results.jsonl`` and the figures, over those of a report that is there.

    Returns:
        the page, which is written last.

    Raises:
        FoveateError: the folder cannot be written.
    """
    check_folder(folder)
    drawn = plots(results)
    write_plots(folder, drawn)
    write_records(folder, results.records)
    write_atomically(folder / PAGE_FILE, page(results, drawn, title=title, commands=commands, notes=notes))
    return folder / PAGE_FILE


def write_probe(records: Sequence[Record], plots: Sequence[Plot], folder: Path, *, title: str, command: str) -> Path:
    """Write what a probe found as ``write_report`` writes a comparison; returns the page."""
    check_folder(folder)
    write_plots(folder, plots)
    write_records(folder, records)
    write_atomically(folder / PAGE_FILE, probe_page(plots, records, title=title, command=command))
    return folder / PAGE_FILE


def write_plots(folder: Path, plots: Iterable[Plot]) -> None:
    """Each as PNG and SVG."""
    for plot in plots:
        write_atomically(folder / f"{plot.name}.svg", plot.svg)
        write_atomically(folder / f"{plot.name}.png", plot.png)


def write_records(folder: Path, records: Iterable[Record]) -> None:
    """``results.jsonl``: a JSON object per line."""
    write_atomically(folder / RESULTS_FILE, "".join(json.dumps(record) + "\n" for record in records))


def check_folder(folder: Path) -> None:
    """Raise a ``FoveateError`` unless a report can be written there: better before all the measuring than after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise FoveateError(f"--out: {folder} cannot be used as a folder: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise FoveateError(f"--out: {folder} cannot be written; choose another")
