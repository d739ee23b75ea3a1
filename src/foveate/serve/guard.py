"""What stands before the endpoints: which hosts are meant, how large a request may be, how long it may take to come.

It reads a request's body whole, and hands on what it has read; a client that breaks a rule gets one line and no more of
it is read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from typing import Any

from foveate.serve.errors import ApiError, bad

JSON_TYPES = ("application/json", "text/json")
PARSED_HERE = 1 << 16  # bytes: what is longer is parsed in a thread
SECONDS = 30.0  # a request may take to come
LEAST_ROOM, MOST_ROOM = 1 << 20, 1 << 25  # bytes of a request
BODIES = 8  # requests of the largest size that may be on their way at once


def room_for_body(characters: int) -> int:
    """Bytes that a request may have whose texts have ``characters``: as \\u.... escapes, or as ids."""
    return min(max(LEAST_ROOM, 8 * characters), MOST_ROOM)


class Guard:
    """ASGI middleware. ``hosts``: what the Host header may name; none: anything."""

    def __init__(self, app: Any, *, hosts: Collection[str] = (), room: int, seconds: float = SECONDS) -> None:
        self.app, self.hosts, self.room, self.seconds = app, frozenset(hosts), room, seconds
        self.coming = 0  # bytes of requests on their way

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        held = 0
        try:
            headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
            self._check_host(headers)
            body = b""
            if scope["method"] in ("POST", "PUT", "PATCH"):
                body, held = await self._read(headers, receive)
        except ApiError as error:
            self.coming -= held
            await _refuse(error, send)
            return
        first = True

        async def replay() -> Any:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        try:
            await self.app(scope, replay, send)
        finally:
            self.coming -= held

    def _check_host(self, headers: dict[bytes, str]) -> None:
        if not self.hosts:
            return
        host = headers.get(b"host", "")
        name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
        if name.lower().strip("[]").rstrip(".") not in self.hosts:
            # a page of another site, whose name was made to mean this machine
            raise ApiError(421, f"the Host header names {host[:60]!r}; this server answers on this machine alone")

    async def _read(self, headers: dict[bytes, str], receive: Any) -> tuple[bytes, int]:
        """The body, and the bytes that it was counted for.

        Raises:
            ApiError: it is not JSON by its header, too long, or too slow.
        """
        kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        if kind not in JSON_TYPES:  # which a page of another site cannot send without being asked
            raise ApiError(415, f"the Content-Type is {kind[:60]!r}; send application/json")
        told = headers.get(b"content-length", "")
        if told.isdecimal() and len(told) < 20 and int(told) > self.room:
            raise self._too_long(int(told))
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(400, "the client has gone")
                    part = message.get("body", b"")
                    if size + len(part) > self.room:
                        raise self._too_long(size + len(part))
                    if self.coming + len(part) > BODIES * self.room:
                        raise ApiError(429, "too many large requests at once; try again later", code="queue_full")
                    size += len(part)
                    self.coming += len(part)
                    parts.append(part)
                    if not message.get("more_body"):
                        return b"".join(parts), size
        except TimeoutError:
            self.coming -= size
            raise ApiError(408, f"the request was not whole after {self.seconds:g} s") from None
        except BaseException:
            self.coming -= size
            raise

    def _too_long(self, size: int) -> ApiError:
        return ApiError(413, f"the request has {size:,} bytes or more; this server reads up to {self.room:,}")


async def _refuse(error: ApiError, send: Any) -> None:
    body = json.dumps(error.body()).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_json(body: bytes) -> Any:
    """Raises ApiError for what is not JSON."""
    if len(body) > PARSED_HERE:
        return await asyncio.to_thread(_loads, body)
    return _loads(body)


def _loads(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, numbers of 5,000 digits, 100,000 brackets
        raise bad(f"the request is not JSON: {str(error)[:120]}") from None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")
