"""The page as an application: which path does what, and how mistakes are answered.

What takes a model is a POST, answered in lines of JSON while the worker is at it: events, and last ``result`` or
``error``. A mistake that shows before the first event is a 4xx. Who closes the connection stops the work.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from foveate.errors import FoveateError
from foveate.pages.comparing import comparison
from foveate.pages.fields import LONGEST_TEXT, Fields
from foveate.pages.lookback import Lookback
from foveate.pages.scramble import scramble
from foveate.pages.shelf import Shelf
from foveate.pages.surprise import surprise
from foveate.pages.training import follow, memory
from foveate.pages.work import Event, Job, Work, Worker
from foveate.pages.writing import write
from foveate.report.style import BASE
from foveate.serve.errors import ApiError, bad
from foveate.serve.guard import SECONDS, Guard, read_json, room_for_body
from foveate.serve.reply import answer_json

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
HEADERS = {
    # a report is shown in a frame, and brings its style and figures with it
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
LOOK_AFTER = 0.1  # seconds between looks whether a visitor is still there


def build_pages(shelf: Shelf, *, hosts: Collection[str] = (), seconds: float = SECONDS) -> FastAPI:
    """The page of a shelf's models as an ASGI application; it starts and ends its worker.

    Args:
        hosts: what the Host header may name; none: anything.
        seconds: a request may take to come.
    """
    worker, lookback = Worker(), Lookback(shelf)
    files = {path.name: path.read_bytes() for path in (resources.files("foveate.pages") / "static").iterdir()}
    files["base.css"] = BASE.encode()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        try:
            yield
        finally:
            worker.interrupt()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.worker = worker
    app.add_middleware(Guard, hosts=hosts, room=room_for_body(LONGEST_TEXT), seconds=seconds)

    def post(name: str, make: Callable[[Fields], Work]) -> None:
        async def answer(request: Request) -> Response:
            return await _answer(request, worker, make(Fields(await read_json(await request.body()))))

        app.post(f"/api/{name}")(answer)

    post("look", lookback.work)
    post("surprise", partial(surprise, shelf))
    post("scramble", partial(scramble, shelf))
    post("write", partial(write, shelf))
    post("compare", partial(comparison, shelf))

    @app.get("/api/models")
    async def models() -> Response:
        return answer_json({"models": await asyncio.to_thread(shelf.describe)})

    @app.get("/api/run")
    async def run(request: Request) -> Response:
        name, after, log = (request.query_params.get(key, "0") for key in ("name", "after", "log"))
        if not (after.isdecimal() and log.isdecimal() and len(after) < 16 and len(log) < 16):
            raise bad("after and log: write whole numbers, as the last answer gave them")
        return answer_json(await asyncio.to_thread(follow, shelf, name, int(after), int(log)))

    @app.get("/api/memory")
    async def needed(request: Request) -> Response:
        return answer_json(await asyncio.to_thread(memory, shelf, request.query_params.get("name", "")))

    @app.get("/health")
    async def health() -> Response:
        return answer_json({"status": "ok", "waiting": worker.waiting})

    @app.get("/{name}")
    async def file(name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        kind = KINDS[name.rpartition(".")[2]]
        return Response(files[name], media_type=kind, headers=HEADERS)

    @app.get("/")
    async def home() -> Response:
        return Response(files["index.html"], media_type="text/html", headers=HEADERS)

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return answer_json(error.body(), error.status)

    @app.exception_handler(FoveateError)
    async def mistaken(request: Request, error: FoveateError) -> Response:
        return answer_json(bad(" ".join(str(error).split())).body(), 400)

    @app.exception_handler(HTTPException)
    async def no_such_thing(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path[:60]}"
        message = {404: f"there is no {what}", 405: f"{what} is not done"}.get(error.status_code, str(error.detail))
        return answer_json(ApiError(error.status_code, message).body(), error.status_code)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return answer_json(ApiError(500, f"internal error: {type(error).__name__}").body(), 500)

    return app


async def _answer(request: Request, worker: Worker, work: Work) -> Response:
    job = worker.submit(work)
    try:
        first = await _next(request, job)
    except BaseException:
        job.stop()
        raise
    if "error" in first:
        raise ApiError(first["status"], first["error"])

    async def lines() -> AsyncIterator[bytes]:
        event = first
        try:
            while True:
                yield json.dumps(event).encode() + b"\n"
                if "result" in event or "error" in event:
                    return
                event = await _next(request, job)
        finally:
            job.stop()

    return StreamingResponse(lines(), media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})


async def _next(request: Request, job: Job) -> Event:
    """The job's next event.

    Raises:
        ApiError: who asked has gone.
    """
    while True:
        try:
            return await asyncio.wait_for(job.events.get(), LOOK_AFTER)
        except TimeoutError:
            if await request.is_disconnected():
                job.stop()
                raise ApiError(400, "the client has gone") from None
