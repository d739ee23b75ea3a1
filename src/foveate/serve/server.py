"""Listening: the socket, connections that say nothing, and stopping at the next token."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from foveate.errors import FoveateError
from foveate.serve.engine import Engine

HEAD_SECONDS = 15.0  # a connection may take to say what it wants
GRACE = 1  # seconds that streams have to tell that they end
KEEP_ALIVE = 30  # seconds between requests of a connection
CONNECTIONS = 1024
SWITCH_SECONDS = 5e-4  # until a thread of Python gives way: generation waits for the event loop after every operation


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address, not yet listening; port 0 is any free one.

    Raises:
        FoveateError: the address is not this machine's, or taken; no such port.
    """
    if not 0 <= port <= 65535:
        raise FoveateError(f"--port: {port} is not a port; write a number from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FoveateError(f"cannot listen on {host} port {port}: {reason}; choose another --host or --port") from None
    return bound


def run(app: Any, engine: Engine, bound: socket.socket, announce: Callable[[], None]) -> None:
    """Answer requests until interrupted; ``announce`` is called once connections are accepted."""
    with _quick_switches():
        Server(_config(app), engine, announce).run(sockets=[bound])


@contextlib.contextmanager
def served(app: Any, engine: Engine, *, keep_alive: int = KEEP_ALIVE) -> Iterator[str]:
    """The address of a server that runs in a thread meanwhile, on a free port of this machine."""
    bound = listen("127.0.0.1", 0)
    ready = threading.Event()
    server = Server(_config(app, timeout_keep_alive=keep_alive), engine, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    with _quick_switches():
        thread.start()
        ready.wait()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            engine.interrupt()
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def _quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, SWITCH_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _config(app: Any, **changes: Any) -> uvicorn.Config:
    options: dict[str, Any] = {
        "log_level": "error",
        "access_log": False,
        "lifespan": "on",
        "http": PromptProtocol,
        "ws": "none",
        "proxy_headers": False,
        "server_header": False,
        "timeout_keep_alive": KEEP_ALIVE,
        "timeout_graceful_shutdown": GRACE,
        "limit_concurrency": CONNECTIONS,
        "h11_max_incomplete_event_size": 1 << 15,
    }
    return uvicorn.Config(app, **{**options, **changes})


class Server(uvicorn.Server):
    """Ends all answers when it is told to stop."""

    def __init__(self, config: uvicorn.Config, engine: Engine, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self.engine, self.announce = engine, announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.engine.interrupt()
        super().handle_exit(sig, frame)
        if self._captured_signals.count(signal.SIGTERM) > 1:
            self.force_exit = True


class PromptProtocol(H11Protocol):
    """Closes a connection that has not said what it wants after a while, however slowly it goes on saying it."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
