"""Ctrl-C and SIGTERM as a request: end the step, save, leave."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered, the first signal is noted (calling the object says whether), the second interrupts at once.

    With ``insists`` off it is ignored: torchrun sends Ctrl-C on to processes that the terminal has told already, and
    ends those that take too long.
    """

    def __init__(self, note: Callable[[str], None], *, insists: bool = True) -> None:
        self.note = note
        self.insists = insists
        self.received: int | None = None
        self.process = os.getpid()
        self._former: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that such a signal has ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 0 if self.received is None else 128 + self.received

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # signals reach no other
            self._former = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a data worker, which has inherited this: its process is told too
            return
        if self.received is not None:
            if self.insists:
                raise KeyboardInterrupt(number)
            return
        self.received = number
        self.note("stopping after this step, with a checkpoint" + "; once more to leave at once" * self.insists)


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """While entered, SIGTERM does what Ctrl-C does: it raises a ``KeyboardInterrupt``, which has its number."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
