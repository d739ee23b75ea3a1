"""Clients of a server that is measured, in a process of their own: what they read does not slow down what it writes.

``python -m foveate.bench.clients HOST PORT`` reads turns, a line of JSON each, from standard input, and writes a line
for each: what every request got, and when. It imports nothing heavy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import IO

from foveate.errors import FoveateError


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What clients got.

    Attributes:
        tokens: of each answer.
        first: seconds until the first token of each.
        seconds: of the whole turn.
    """

    tokens: list[int]
    first: list[float]
    seconds: float


class Clients:
    """The other end of the process."""

    def __init__(self, asking: IO[str], answering: IO[str]) -> None:
        self._asking, self._answering = asking, answering

    def ask(self, bodies: Sequence[dict[str, object]], *, at_once: bool) -> Turn:
        """Send each of ``bodies`` as a request for a streamed completion, all of them at once or one after another.

        Raises:
            FoveateError: the process has ended.
        """
        self._asking.write(json.dumps({"bodies": list(bodies), "at_once": at_once}) + "\n")
        self._asking.flush()
        line = self._answering.readline()
        if not line:
            raise FoveateError("the clients ended before their answers had come; what they say stands above")
        return Turn(**json.loads(line))


@contextlib.contextmanager
def clients(address: str) -> Iterator[Clients]:
    """Clients of the server at ``http://HOST:PORT``."""
    host, _, port = address.removeprefix("http://").partition(":")
    command = [sys.executable, "-m", __name__, host, port]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Clients(process.stdin, process.stdout)


async def _turn(host: str, port: int, bodies: Sequence[dict[str, object]], at_once: bool) -> Turn:
    start = time.perf_counter()
    if at_once:
        done = await asyncio.gather(*(_stream(host, port, body) for body in bodies))
    else:
        done = [await _stream(host, port, body) for body in bodies]
    seconds = time.perf_counter() - start
    return Turn(tokens=[tokens for tokens, _ in done], first=[first for _, first in done], seconds=seconds)


async def _stream(host: str, port: int, body: dict[str, object]) -> tuple[int, float]:
    """Tokens of one answer, and seconds to its first."""
    start, first, tokens = time.perf_counter(), 0.0, 0
    content = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"{head}Connection: close\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
    async for line in reader:
        if line.startswith(b"data: {"):
            first = first or time.perf_counter() - start
            if b'"choices":[]' in line:
                tokens = json.loads(line.removeprefix(b"data: "))["usage"]["completion_tokens"]
    writer.close()
    await writer.wait_closed()
    return tokens, first


def _main(host: str, port: str) -> None:
    for line in sys.stdin:
        turn = json.loads(line)
        print(json.dumps(asdict(asyncio.run(_turn(host, int(port), turn["bodies"], turn["at_once"])))), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
