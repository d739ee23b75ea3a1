"""A comparison's report on disk: the page, its figures, and the records it was made of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from foveate.errors import FoveateError
from foveate.files import write_atomically
from foveate.report.page import page
from foveate.report.plots import plots
from foveate.report.results import Results

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
    for plot in drawn:
        write_atomically(folder / f"{plot.name}.svg", plot.svg)
        write_atomically(folder / f"{plot.name}.png", plot.png)
    write_atomically(folder / RESULTS_FILE, results.to_lines())
    write_atomically(folder / PAGE_FILE, page(results, drawn, title=title, commands=commands, notes=notes))
    return folder / PAGE_FILE


def check_folder(folder: Path) -> None:
    """Raise a ``FoveateError`` unless a report can be written there: better before all the measuring than after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise FoveateError(f"--out: {folder} cannot be used as a folder: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise FoveateError(f"--out: {folder} cannot be written; choose another")
