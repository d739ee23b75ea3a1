"""A model behind the OpenAI interface: transformers' own server, given one model, and stricter at the door.

What is added: any causal model ``load`` reads; mistakes answered with a 4xx and a message; a limit on the prompt; stop
sequences left out of the text; a temperature that samples.
"""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from foveate.errors import FoveateError

NEEDED = ("fastapi", "uvicorn", "openai", "pydantic")
missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if missing:
    raise FoveateError(f"serving needs {', '.join(missing)}: pip install 'foveate[serve]'")

from fastapi import FastAPI, HTTPException  # noqa: E402
from transformers.cli.serving.chat_completion import ChatCompletionHandler  # noqa: E402
from transformers.cli.serving.completion import CompletionHandler  # noqa: E402
from transformers.cli.serving.model_manager import ModelManager, TimedModel  # noqa: E402
from transformers.cli.serving.response import ResponseHandler  # noqa: E402
from transformers.cli.serving.server import build_server  # noqa: E402
from transformers.cli.serving.systemone import SystemOneHandler  # noqa: E402
from transformers.cli.serving.transcription import TranscriptionHandler  # noqa: E402
from transformers.cli.serving.utils import GenerateManager, GenerationState  # noqa: E402

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# for tokenizers that bring none: the model then continues a transcript
TRANSCRIPT = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
NUMBERS: dict[str, tuple[Any, float, float]] = {
    "max_tokens": (int, 1, 1 << 31),
    "max_completion_tokens": (int, 1, 1 << 31),
    "temperature": ((int, float), 0, 2),
    "top_p": ((int, float), 1e-6, 1),
    "frequency_penalty": ((int, float), -0.99, 2),
    "seed": (int, 0, (1 << 63) - 1),
}


def build_app(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str, context: int) -> FastAPI:
    """The server as an ASGI application: ``model`` under ``name``, for texts of up to ``context`` tokens."""
    if tokenizer.chat_template is None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = TRANSCRIPT
    manager = OneModel(model, tokenizer, name)
    state = Generation(context, tokenizer)
    return build_server(
        manager,
        Chat(manager, state),
        completion_handler=Completion(manager, state),
        response_handler=Response(manager, state),
        transcription_handler=TranscriptionHandler(manager, state),
        systemone_handler=SystemOneHandler(manager, state),
        generation_state=state,
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; port 0 is any free one.

    Raises:
        FoveateError: the address is not this machine's, or taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FoveateError(f"cannot listen on {host} port {port}: {reason}; choose another --host or --port") from None
    return bound


def run(app: FastAPI, bound: socket.socket) -> None:
    """Answer requests until interrupted."""
    import uvicorn

    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[bound])


class OneModel(ModelManager):
    """Holds the one model there is: requests can neither load another nor unload it."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        super().__init__()
        self.force_model = name
        self.loaded_models[name] = TimedModel(model, timeout_seconds=-1, processor=tokenizer)

    @staticmethod
    def process_model_name(model_id: str) -> str:
        return model_id

    def load_model_and_processor(self, model_id_and_revision: str, *args: Any, **options: Any) -> tuple[Any, Any]:
        if model_id_and_revision not in self.loaded_models:
            raise ValueError(f"this server has {self.force_model!r} only")
        return super().load_model_and_processor(model_id_and_revision, *args, **options)

    def get_gen_models(self, cache_dir: str | None = None) -> list[dict[str, Any]]:  # type: ignore[override]
        return [{"id": self.force_model, "object": "model", "created": 0, "owned_by": "foveate"}]

    def shutdown(self) -> None:
        """Anyone may ask for it over the network."""


class Generation(GenerationState):
    """One thread that generates, request after request."""

    def __init__(self, context: int, tokenizer: Any) -> None:
        super().__init__()
        self.manager = LimitedGeneration(context, tokenizer)

    def get_manager(self, model_id: str, use_cb: bool = False) -> LimitedGeneration:
        return self.manager


class LimitedGeneration(GenerateManager):
    """Generation that refuses prompts beyond the context, ends at it, and leaves stop sequences out."""

    def __init__(self, context: int, tokenizer: Any) -> None:
        super().__init__()
        self.context = context
        self.prefix = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), None)

    def _fit(self, inputs: Any, config: Any) -> list[str]:
        ids = inputs["input_ids"]
        if ids.shape[-1] == 0:
            if self.prefix is None:
                raise HTTPException(400, "the prompt is empty, and this model's tokenizer has no token to begin with")
            inputs["input_ids"] = ids = ids.new_full((1, 1), self.prefix).long()
            inputs["attention_mask"] = ids.new_ones(1, 1)
        length = ids.shape[-1]
        if length >= self.context:
            raise HTTPException(400, f"the prompt has {length} tokens; this server reads less than {self.context}")
        config.max_new_tokens = min(config.max_new_tokens or self.context, self.context - length)
        stops = config.stop_strings or []
        return [stops] if isinstance(stops, str) else list(stops)

    def generate_streaming(
        self, model: Any, processor: Any, inputs: Any, gen_config: Any, *args: Any, **options: Any
    ) -> tuple[Any, Any]:
        stops = self._fit(inputs, gen_config)
        queue, streamer = super().generate_streaming(model, processor, inputs, gen_config, *args, **options)
        return (StopQueue(queue, stops) if stops else queue), streamer

    async def generate_non_streaming(
        self, model: Any, processor: Any, inputs: Any, gen_config: Any, *args: Any, **options: Any
    ) -> tuple[str, int, Any]:
        stops = self._fit(inputs, gen_config)
        text, length, ids = await super().generate_non_streaming(model, processor, inputs, gen_config, *args, **options)
        return cut_at(text, stops)[0], length, ids


def cut_at(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text before the first stop sequence, and whether there was one."""
    found = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return (text[: min(found)], True) if found else (text, False)


class StopQueue:
    """The pieces of a stream up to the first stop sequence; what may be the beginning of one waits for the rest."""

    def __init__(self, queue: asyncio.Queue[Any], stops: list[str]) -> None:
        self.queue = queue
        self.stops = stops
        self.held = ""
        self.stopped = False
        self.ready: deque[Any] = deque()

    async def get(self) -> Any:
        while not self.ready:
            self._take(await self.queue.get())
        return self.ready.popleft()

    def get_nowait(self) -> Any:
        while not self.ready:
            self._take(self.queue.get_nowait())
        return self.ready.popleft()

    def _take(self, item: Any) -> None:
        if not isinstance(item, str):  # the end, or an error
            if self.held and not self.stopped:
                self.ready.append(self.held)
            self.ready.append(item)
            return
        if self.stopped:
            return
        text, self.stopped = cut_at(self.held + item, self.stops)
        held = 0 if self.stopped else max(_begun(text, stop) for stop in self.stops)
        self.held = text[len(text) - held :]
        if len(text) > held:
            self.ready.append(text[: len(text) - held])


def _begun(text: str, stop: str) -> int:
    """Letters at the end of ``text`` with which ``stop`` begins."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


class Strict:
    """A handler that answers every mistake in a request with a 4xx, and a message."""

    async def handle_request(self, body: dict[str, Any], request_id: str) -> Any:
        try:
            return await super().handle_request(body, request_id)  # type: ignore[misc]
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            what = f"{type(error).__name__}: {error}" if not isinstance(error, FoveateError) else str(error)
            raise HTTPException(400, f"this request cannot be answered: {what}") from error

    def _validate_request(self, body: dict[str, Any]) -> None:
        super()._validate_request(body)  # type: ignore[misc]
        check_body(body)

    def _build_generation_config(self, body: dict[str, Any], *args: Any, **options: Any) -> Any:
        config = super()._build_generation_config(body, *args, **options)  # type: ignore[misc]
        if body.get("temperature") != 0 and (body.get("temperature") is not None or body.get("top_p") is not None):
            config.do_sample = True
        return config


class Completion(Strict, CompletionHandler):
    pass


class Chat(Strict, ChatCompletionHandler):
    def _validate_request(self, body: dict[str, Any]) -> None:
        super()._validate_request(body)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise HTTPException(400, "messages must be a list of at least one message")
        for message in messages:
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise HTTPException(400, "each of messages must be an object with role and content")
            content = message.get("content")
            if content is not None and not isinstance(content, str | list):
                raise HTTPException(400, "content must be a string or a list of parts")


class Response(Strict, ResponseHandler):
    pass


def check_body(body: dict[str, Any]) -> None:
    """Raise a 400 for a field of the wrong type or range; what is not there has a default."""
    for name, (kind, low, high) in NUMBERS.items():
        value: Any = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
            whole = "a whole number" if kind is int else "a number"
            raise HTTPException(400, f"{name} is {value!r}; it must be {whole} from {low:g} to {high:g}")
    if body.get("stream") is not None and not isinstance(body["stream"], bool):
        raise HTTPException(400, f"stream is {body['stream']!r}; it must be true or false")
    stop = body.get("stop")
    if stop is None:
        return
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(each, str) and each for each in stops) or len(stops) > 16:
        raise HTTPException(400, f"stop is {stop!r}; it must be a string, or up to 16 of them, none empty")
    if not stops:
        del body["stop"]
