"""The server as an application: which path does what, and how mistakes are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from foveate.serve import pages
from foveate.serve.batching import BatchingEngine
from foveate.serve.chat import chat
from foveate.serve.completions import complete
from foveate.serve.engine import Engine
from foveate.serve.errors import ApiError
from foveate.serve.foreign import ForeignEngine
from foveate.serve.guard import SECONDS, Guard, read_json, room_for_body
from foveate.serve.reading import Reader
from foveate.serve.reply import Service, answer_json, now
from foveate.serve.responses import respond
from foveate.serve.spelling import Speller

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Endpoint = Callable[[Service, Speller, Request, Any], Awaitable[Response]]


def build_engine(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **limits: int) -> Engine:
    """Ours in batches, any other model one answer after another; ``limits`` are those of ``Engine``."""
    kind = BatchingEngine if model.config.model_type == "foveate" else ForeignEngine
    return kind(model, tokenizer, **limits)


def build_app(
    engine: Engine, *, name: str, hosts: Collection[str] = (), seconds: float = SECONDS, special_tokens: bool = False
) -> FastAPI:
    """The server as an ASGI application: ``engine``'s model under ``name``. It starts and closes the engine.

    Args:
        hosts: what the Host header may name; none: anything.
        seconds: a request may take to come.
        special_tokens: let the control tokens that texts spell out be tokens; otherwise they are text.
    """
    reader = Reader(
        engine.tokenizer, vocabulary=engine.vocabulary, context=engine.context, special_tokens=special_tokens
    )
    service, speller = Service(name, engine, reader), Speller(engine.tokenizer)
    born = now()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            engine.close(wait=1.0)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.engine = engine
    app.add_middleware(Guard, hosts=hosts, room=room_for_body(reader.most_characters), seconds=seconds)

    def post(path: str, endpoint: Endpoint) -> None:
        async def answer(request: Request) -> Response:
            return await endpoint(service, speller, request, await read_json(await request.body()))

        app.post(path)(answer)

    post("/v1/completions", complete)
    post("/v1/chat/completions", chat)
    post("/v1/responses", respond)

    model = {"id": name, "object": "model", "created": born, "owned_by": "foveate", "max_model_len": engine.context}

    @app.get("/v1/models")
    async def models() -> Response:
        return answer_json({"object": "list", "data": [model]})

    @app.get("/v1/models/{wanted:path}")
    async def retrieve(wanted: str) -> Response:
        service.check_model({"model": wanted})
        return answer_json(model)

    @app.get("/health")
    async def health() -> Response:
        return answer_json({"status": "ok", "waiting": engine.waiting, "writing": engine.writing})

    @app.get("/")
    async def home(request: Request) -> Response:
        return pages.home(name, engine.context, engine.batch, str(request.base_url).rstrip("/"))

    @app.get("/docs")
    async def docs() -> Response:
        return pages.docs(name)

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return answer_json(error.body(), error.status)

    @app.exception_handler(HTTPException)
    async def no_such_thing(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path[:60]}"
        message = {404: f"there is no {what}; see /docs", 405: f"{what} is not done; see /docs"}
        answer = ApiError(error.status_code, message.get(error.status_code, str(error.detail)))
        response = answer_json(answer.body(), error.status_code)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return answer_json(ApiError(500, f"internal error: {type(error).__name__}").body(), 500)

    return app
