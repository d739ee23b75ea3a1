"""How far a long pass over text has come, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def byte_progress(title: str, total: int | None, *, show: bool) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with each number of bytes done.

    A bar with rate and time left on a terminal; elsewhere a plain line now and then, none for what is done sooner.
    """
    if not show:
        yield lambda done: None
    elif sys.stderr.isatty():
        with _bar(title, total) as advance:
            yield advance
    else:
        yield _lines(title, total)


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.advance(task, done)


def _lines(title: str, total: int | None) -> Callable[[int], None]:
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
        left = f", {max(0, total - so_far) / rate:.0f} s left" if total else ""
        of = f" of {total / 1e6:.1f}" if total else ""
        print(f"{title}: {so_far / 1e6:.1f}{of} MB, {rate / 1e6:.1f} MB/s{left}", file=sys.stderr)

    return advance
