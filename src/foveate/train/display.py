"""What a person sees of a training run, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

SECONDS_BETWEEN_LINES = 15.0


class Display:
    """Shows steps, loss, tokens per second, time left and validations of a run of ``steps`` steps.

    Use as a context manager; ``note`` writes a line of its own at any time. A ``quiet`` one shows nothing.
    """

    def __init__(self, steps: int, tokens_per_step: int, *, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.steps = steps
        self.tokens_per_step = tokens_per_step
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self.last_line = float("-inf")
        self.rate = 0.0
        columns = (
            TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
            BarColumn(),
            TextColumn("{task.fields[now]}"),
        )
        self.bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=steps, now="")

    def __enter__(self) -> Display:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def note(self, line: str) -> None:
        if self.quiet:
            return
        if self.console.is_terminal:
            self.console.print(line, markup=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def on_step(self, step: int) -> None:
        self.bar.update(self.task, completed=step)

    def on_record(self, record: dict[str, Any]) -> None:
        step = record["step"]
        place = f"step {step:,}/{self.steps:,}"
        if record["kind"] == "skipped":
            loss = "no finite number" if record["loss"] is None else f"{record['loss']:.4g}"
            self.note(f"{place}: skipped, its loss was {loss}")
            return
        if record["kind"] == "valid":
            self.note(f"{place}: validation {record['bpb']:.4f} bits per byte, perplexity {record['perplexity']:.4g}")
            return
        if record["kind"] == "sample":
            self.note(f"{place}: {' '.join((record['prompt'] + record['text']).split())}")
            return
        self.rate = record["tokens_per_s"]
        now = f"loss {record['loss']:.3f}  {_short(self.rate)} tokens/s  {self._left(step)} left"
        self.bar.update(self.task, now=now)
        if not self.console.is_terminal and time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            self.note(f"{place}: {now}")

    def _left(self, step: int) -> str:
        return duration((self.steps - step) * self.tokens_per_step / max(self.rate, 1e-9))


def duration(seconds: float) -> str:
    """``8s``, ``4m10s``, ``3h05m`` or ``2d04h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number < 10_000 else f"{number / 1000:,.1f}k"
