"""How far a long prompt has been read, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def token_progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with each number of tokens done: a bar on a terminal, elsewhere a line now and then."""
    if not sys.stderr.isatty():
        yield _lines(title, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    rate = TextColumn("{task.fields[rate]} tokens/s")
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), rate)
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, rate="–")

        def advance(done: int) -> None:
            bar.update(task, advance=done, rate=f"{bar.tasks[0].speed or 0:,.0f}")

        yield advance


def _lines(title: str, total: int) -> Callable[[int], None]:
    start = last = time.monotonic()
    so_far = 0

    def advance(done: int) -> None:
        nonlocal so_far, last
        so_far += done
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = so_far / (now - start)
        left = (total - so_far) / rate
        print(f"{title}: {so_far:,} of {total:,} tokens, {rate:,.0f} tokens/s, {left:.0f} s left", file=sys.stderr)

    return advance
