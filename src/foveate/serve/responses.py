"""``/v1/responses``: one answer to an input; nothing is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import Request, Response

from foveate.serve.engine import Job, Token
from foveate.serve.errors import ApiError, bad
from foveate.serve.fields import RESPONSES, parse
from foveate.serve.reading import items_as_messages
from foveate.serve.reply import (
    CLIENT_GONE,
    DEFAULT_ANSWER,
    Reply,
    Service,
    Written,
    answer_json,
    new_id,
    now,
    server_sent,
)
from foveate.serve.spelling import Speller, chat_log_probs


async def respond(service: Service, speller: Speller, request: Request, body: Any) -> Response:
    values = parse(body, RESPONSES)
    service.check_model(values)
    included = "message.output_text.logprobs" in values.get("include", ())
    if values.get("top_logprobs") and not included:
        raise bad('top_logprobs needs include to hold "message.output_text.logprobs"', "top_logprobs")
    if "input" not in values:
        raise bad("input is missing; it must be a text or a list of messages", "input")
    sampling = service.sampling(values)
    messages = items_as_messages(values["input"], values.get("instructions"))
    prompt = await service.reader.chat(messages, "input")
    reply = Reply(service.engine)
    job = Job(
        prompt,
        sampling,
        reply.deliver,
        service.room(prompt, values.get("max_output_tokens"), DEFAULT_ANSWER, "input"),
        stops=values.get("stop", ()),
        log_probs=values.get("top_logprobs", 0) if included else None,
    )
    reply.begin([job])
    shape = Shape(service.name, values, speller, len(prompt))
    if values.get("stream"):
        return server_sent(_events(shape, reply))
    written = await reply.whole(request)
    if written is None:
        return Response(status_code=CLIENT_GONE)
    return answer_json(shape.response(written[0][0]))


class Shape:
    """The objects of one response."""

    def __init__(self, name: str, values: Mapping[str, Any], speller: Speller, read: int) -> None:
        self.id, self.item_id, self.created = new_id("resp_"), new_id("msg_"), now()
        self.name, self.values, self.speller, self.read = name, values, speller, read

    def log_probs(self, tokens: list[Token]) -> list[dict[str, Any]]:
        return chat_log_probs(self.speller, tokens) if "include" in self.values else []

    def part(self, answer: Written) -> dict[str, Any]:
        return {
            "type": "output_text",
            "text": answer.text,
            "annotations": [],
            "logprobs": self.log_probs(answer.tokens),
        }

    def item(self, answer: Written | None) -> dict[str, Any]:
        status = "in_progress" if answer is None else _status(answer)
        content = [] if answer is None else [self.part(answer)]
        return {"id": self.item_id, "type": "message", "role": "assistant", "status": status, "content": content}

    def response(self, answer: Written | None, error: ApiError | None = None) -> dict[str, Any]:
        values = self.values
        cut = answer is not None and answer.finish == "length"
        status = "failed" if error is not None else "in_progress" if answer is None else _status(answer)
        new = len(answer.tokens) if answer is not None else 0
        told = {
            "input_tokens": self.read,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": new,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.read + new,
        }
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "error": None if error is None else {"code": "server_error", "message": error.message},
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": values.get("instructions"),
            "max_output_tokens": values.get("max_output_tokens"),
            "metadata": values.get("metadata", {}),
            "model": self.name,
            "output": [] if answer is None else [self.item(answer)],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": values.get("temperature", 1.0),
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_logprobs": values.get("top_logprobs", 0),
            "top_p": values.get("top_p", 1.0),
            "truncation": "disabled",
            "usage": told if answer is not None else None,
            "user": values.get("user"),
        }


def _status(answer: Written) -> str:
    return "incomplete" if answer.finish == "length" else "completed"


async def _events(shape: Shape, reply: Reply) -> AsyncIterator[tuple[str, Any]]:
    count = 0

    def event(kind: str, **body: Any) -> tuple[str, Any]:
        nonlocal count
        count += 1
        name = f"response.{kind}"
        return name, {"type": name, "sequence_number": count - 1, **body}

    where = {"item_id": shape.item_id, "output_index": 0, "content_index": 0}
    yield event("created", response=shape.response(None))
    yield event("in_progress", response=shape.response(None))
    yield event("output_item.added", output_index=0, item=shape.item(None))
    yield event("content_part.added", **where, part=shape.part(Written()))
    answer, waiting = Written(), list[Token]()
    try:
        async for events in reply.events():
            for news in events:
                answer.add(news)
                waiting += news.tokens
                if news.text:
                    yield event("output_text.delta", **where, delta=news.text, logprobs=shape.log_probs(waiting))
                    waiting = []
    except ApiError as error:
        yield event("failed", response=shape.response(None, error))
        return
    yield event("output_text.done", **where, text=answer.text, logprobs=shape.log_probs(answer.tokens))
    yield event("content_part.done", **where, part=shape.part(answer))
    yield event("output_item.done", output_index=0, item=shape.item(answer))
    ended = shape.response(answer)
    yield event("incomplete" if ended["status"] == "incomplete" else "completed", response=ended)
