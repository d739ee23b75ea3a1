"""What all tables share, and where they are printed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_WIDTH = 140  # columns, where the output is no terminal


def screen(plain_width: int = PLAIN_WIDTH) -> Console:
    """Standard output, as wide as the terminal."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else plain_width)


def new_table(first: str, numbers: Iterable[str] = ()) -> Table:
    """A table whose columns but the first are ``numbers``, to the right; names are plain text."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column(escape(first))
    for name in numbers:
        table.add_column(escape(name), justify="right")
    return table
