"""One thread that works with models, and jobs that wait for it, tell how far they are, and can be stopped.

Models are not made for several threads at once, and a processor has nothing to gain from them: whoever comes waits.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

from torch.nn.modules.module import register_module_forward_pre_hook

from foveate.errors import FoveateError, first_line
from foveate.serve.errors import ApiError

WAITING = 64  # jobs that may wait

Event = dict[str, Any]
Work = Callable[["Job"], Any]


class Stopped(Exception):  # noqa: N818  # nothing went wrong
    """Whoever asked has gone, or the server stops."""


class Job:
    """Something to be done for one visitor, and what it tells: events, the last one ``result`` or ``error``."""

    def __init__(self, work: Work, loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self._loop = loop
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._hook: Any = None

    def begin(self) -> bool:
        """It is this thread's turn to do it; False where it is to be done no more."""
        with self._lock:
            self._thread = threading.get_ident()
            return not self.stopped

    def end(self) -> None:
        with self._lock:
            self._thread = None
            if self._hook is not None:
                self._hook.remove()

    def stop(self) -> None:
        """What is being done ends at its next event, or at the next module of a model that is to run: within one layer.

        The hook that ends it is there only from now on: what is timed meanwhile does not carry it.
        """
        with self._lock:
            self._stopped.set()
            if self._thread is not None and self._hook is None:
                self._hook = register_module_forward_pre_hook(self._refuse)

    def _refuse(self, module: Any, args: Any) -> None:
        if threading.get_ident() == self._thread:
            raise Stopped

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def tell(self, **event: Any) -> None:
        """Hand on an event; from the worker's thread.

        Raises:
            Stopped: nobody listens any more.
        """
        if self.stopped:
            raise Stopped
        self._put(event)

    def finish(self, **event: Any) -> None:
        self._put(event)

    def _put(self, event: Event) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)


class Worker:
    """Does one job after another, in the order in which they came."""

    def __init__(self) -> None:
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._now: Job | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        return self._jobs.qsize()

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def interrupt(self) -> None:
        """The job that is being done ends, those that wait are not begun."""
        self._closed = True
        if self._now is not None:
            self._now.stop()
        self._jobs.put(None)

    def submit(self, work: Work) -> Job:
        """A job that waits for its turn; call it where the event loop runs.

        Raises:
            ApiError: too many wait already.
        """
        if self._closed or self.waiting >= WAITING:
            raise ApiError(429, "too many visitors wait already; try again in a moment", code="queue_full")
        job = Job(work, asyncio.get_running_loop())
        self._jobs.put(job)
        return job

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed:
            if not job.begin():
                continue
            self._now = job
            self._do(job)
            self._now = None
            job.end()

    def _do(self, job: Job) -> None:
        try:
            job.finish(result=job.work(job))
        except Stopped:
            job.finish(error="stopped", status=409)
        except FoveateError as error:
            job.finish(error=" ".join(str(error).split()), status=400)
        except Exception as error:
            job.finish(**_told(error))


def _told(error: Exception) -> Event:
    text = str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in text:
        return {"error": "there is not enough memory for this; choose a shorter text or a smaller model", "status": 400}
    return {"error": f"internal error: {type(error).__name__}: {first_line(error)}", "status": 500}
