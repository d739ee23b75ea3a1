"""Between the engine's thread and the event loop: a request's jobs, the events that come back, and who gave up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from foveate.serve.choice import Sampling
from foveate.serve.engine import Engine, Event, Job, Token
from foveate.serve.errors import ApiError, bad
from foveate.serve.fields import shown
from foveate.serve.reading import Reader, room_for

DEFAULT_ANSWER = 1024  # tokens, where a request for a chat says nothing
CLIENT_GONE = 499


@dataclass(frozen=True)
class Service:
    """What every endpoint needs."""

    name: str
    engine: Engine
    reader: Reader

    def check_model(self, values: Mapping[str, Any]) -> None:
        if values.get("model", self.name) != self.name:
            message = f"model is {shown(values['model'])}; this server has {self.name!r} alone"
            raise ApiError(404, message, param="model", code="model_not_found")

    def sampling(self, values: Mapping[str, Any]) -> Sampling:
        names = [
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "presence_penalty",
            "frequency_penalty",
            "repetition_penalty",
            "logit_bias",
            "seed",
        ]
        given = {name: values[name] for name in names if name in values}
        if "top_k" in given:
            given["top_k"] = max(given["top_k"], 0)
        for token in given.get("logit_bias", ()):
            if token >= self.engine.vocabulary:
                raise bad(f"logit_bias names {token}; ids go from 0 to {self.engine.vocabulary - 1:,}", "logit_bias")
        return Sampling(**given)

    def room(self, prompt: Sequence[int], asked: int | None, default: int, name: str) -> int:
        return room_for(prompt, asked, default, self.engine.context, name)


@dataclass
class Written:
    """An answer, as far as it has come."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    read: list[Token] = field(default_factory=list)
    finish: str | None = None

    def add(self, event: Event) -> None:
        self.text += event.text
        self.tokens += event.tokens
        self.read += event.read or []
        self.finish = event.finish or self.finish


class Reply:
    """The events of all jobs of one request, until each answer has ended."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.jobs: list[Job] = []
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[list[Event]] = asyncio.Queue()

    def deliver(self, events: list[Event]) -> None:
        """From the engine's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, events)

    def begin(self, jobs: Sequence[Job]) -> None:
        self.jobs = list(jobs)
        self.engine.submit(self.jobs)

    async def events(self) -> AsyncIterator[list[Event]]:
        """As they come, several at a time. Whoever leaves early has the rest cancelled.

        Raises:
            ApiError: an answer failed.
        """
        left = {(job.place, number) for job in self.jobs for number in range(job.answers)}
        try:
            while left:
                events = await self._events.get()
                for event in events:
                    if event.error is not None and (event.prompt, event.number) in left:
                        raise event.error
                    if event.finish:
                        left.discard((event.prompt, event.number))
                yield events
        finally:
            if left:
                self.engine.cancel(self.jobs)

    async def whole(self, request: Request) -> list[list[Written]] | None:
        """The answers of every prompt; None if the client has gone, and with it the work."""

        async def collect() -> list[list[Written]]:
            answers = [[Written() for _ in range(job.answers)] for job in self.jobs]
            async for events in self.events():
                for event in events:
                    answers[event.prompt][event.number].add(event)
            return answers

        async def leave() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        done, gone = asyncio.create_task(collect()), asyncio.create_task(leave())
        try:
            await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
            return await done if done.done() else None
        finally:
            for task in (done, gone):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task


def new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)


def now() -> int:
    return int(time.time())


def answer_json(body: Any, status: int = 200) -> Response:
    # a lone half of a surrogate pair, from a client's escapes, is not text that can be sent
    return Response(_dumps(body), status, media_type="application/json")


def _dumps(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def server_sent(chunks: AsyncIterator[tuple[str | None, Any]]) -> StreamingResponse:
    """A stream of (event name or none, object), then ``[DONE]``; an error on the way is its last object."""

    async def lines() -> AsyncIterator[bytes]:
        try:
            async for name, body in chunks:
                yield (f"event: {name}\n".encode() if name else b"") + b"data: " + _dumps(body) + b"\n\n"
        except ApiError as error:
            yield b"data: " + _dumps(error.body()) + b"\n\n"
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]
        yield b"data: [DONE]\n\n"

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
