"""Ctrl-C and SIGTERM as a request: end the step, save, leave."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered, the first signal is noted (calling the object says whether), the second interrupts at once."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note
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
            raise KeyboardInterrupt
        self.received = number
        self.note("stopping after this step, with a checkpoint; once more to leave at once")
