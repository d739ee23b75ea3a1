"""How far long work has come, on standard error: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

SECONDS_BETWEEN_LINES = 10.0

Advance = Callable[[int], None]


def byte_progress(title: str, total: int | None, *, show: bool = True) -> AbstractContextManager[Advance]:
    """Gives a function to call with each number of bytes done; shown in megabytes, with rate and time left."""
    return _progress(title, total, show, lambda n: f"{n / 1e6:.1f}", "MB")


def token_progress(title: str, total: int | None, *, show: bool = True) -> AbstractContextManager[Advance]:
    """Gives a function to call with each number of tokens done; shown with rate and time left."""
    return _progress(title, total, show, lambda n: f"{n:,.0f}", "tokens")


@contextmanager
def _progress(
    title: str, total: int | None, show: bool, number: Callable[[float], str], unit: str
) -> Iterator[Advance]:
    if not show:
        yield lambda done: None
    elif not sys.stderr.isatty():
        yield _lines(title, total, number, unit)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        state = TextColumn("{task.fields[state]}")
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), state, TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=total, state="")

            def advance(done: int) -> None:
                bar.advance(task, done)
                so_far, rate = bar.tasks[0].completed, bar.tasks[0].speed or 0
                of = f"/{number(total)}" if total else ""
                bar.update(task, state=f"{number(so_far)}{of} {unit}, {number(rate)} {unit}/s")

            yield advance


def _lines(title: str, total: int | None, number: Callable[[float], str], unit: str) -> Advance:
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
        of = f" of {number(total)}" if total else ""
        left = f", {max(0, total - so_far) / rate:.0f} s left" if total else ""
        print(f"{title}: {number(so_far)}{of} {unit}, {number(rate)} {unit}/s{left}", file=sys.stderr)

    return advance
