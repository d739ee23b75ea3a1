"""``/v1/chat/completions``: the next turn of a conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import Request, Response

from foveate.serve.engine import Job, Token
from foveate.serve.errors import bad
from foveate.serve.fields import CHAT, parse
from foveate.serve.reply import (
    CLIENT_GONE,
    DEFAULT_ANSWER,
    Reply,
    Service,
    answer_json,
    new_id,
    now,
    server_sent,
    usage,
)
from foveate.serve.spelling import Speller, chat_log_probs


async def chat(service: Service, speller: Speller, request: Request, body: Any) -> Response:
    values = parse(body, CHAT)
    service.check_model(values)
    if "top_logprobs" in values and not values.get("logprobs"):
        raise bad("top_logprobs needs logprobs to be true", "top_logprobs")
    if "max_tokens" in values and values.get("max_completion_tokens", values["max_tokens"]) != values["max_tokens"]:
        raise bad("max_tokens and max_completion_tokens say different things; leave one out", "max_tokens")
    if values.get("stream_options") and not values.get("stream"):
        raise bad("stream_options is for streams; set stream to true or leave it out", "stream_options")
    sampling = service.sampling(values)
    prompt = await service.reader.chat(values.get("messages"))
    with_log_probs = values.get("logprobs", False)
    reply = Reply(service.engine)
    most = values.get("max_completion_tokens", values.get("max_tokens"))
    job = Job(
        prompt,
        sampling,
        reply.deliver,
        service.room(prompt, most, DEFAULT_ANSWER, "messages"),
        answers=values.get("n", 1),
        stops=values.get("stop", ()),
        log_probs=values.get("top_logprobs", 0) if with_log_probs else None,
    )
    reply.begin([job])
    head = {"id": new_id("chatcmpl-"), "created": now(), "model": service.name}
    if values.get("stream"):
        with_usage = (values.get("stream_options") or {}).get("include_usage", False)
        return server_sent(_chunks(speller, reply, job, head, with_usage))
    written = await reply.whole(request)
    if written is None:
        return Response(status_code=CLIENT_GONE)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": _log_probs(speller, answer.tokens) if with_log_probs else None,
            "finish_reason": answer.finish,
        }
        for index, answer in enumerate(written[0])
    ]
    new = sum(len(answer.tokens) for answer in written[0])
    return answer_json({**head, "object": "chat.completion", "choices": choices, "usage": usage(len(prompt), new)})


def _log_probs(speller: Speller, tokens: list[Token]) -> dict[str, Any]:
    return {"content": chat_log_probs(speller, tokens), "refusal": None}


async def _chunks(
    speller: Speller, reply: Reply, job: Job, head: Mapping[str, Any], with_usage: bool
) -> AsyncIterator[tuple[None, Any]]:
    head = {**head, "object": "chat.completion.chunk"}
    rest = {"usage": None} if with_usage else {}

    def chunk(index: int, delta: Mapping[str, Any], finish: str | None = None, log_probs: Any = None) -> Any:
        choice = {"index": index, "delta": delta, "logprobs": log_probs, "finish_reason": finish}
        return {**head, "choices": [choice], **rest}

    for number in range(job.answers):
        yield None, chunk(number, {"role": "assistant", "content": ""})
    waiting: list[list[Token]] = [[] for _ in range(job.answers)]  # tokens whose text has not come yet
    new = 0
    async for events in reply.events():
        for event in events:
            new += len(event.tokens)
            waiting[event.number] += event.tokens
            if event.text or (event.finish and waiting[event.number] and job.log_probs is not None):
                log_probs = _log_probs(speller, waiting[event.number]) if job.log_probs is not None else None
                yield None, chunk(event.number, {"content": event.text}, None, log_probs)
                waiting[event.number] = []
            if event.finish:
                yield None, chunk(event.number, {}, event.finish)
    if with_usage:
        yield None, {**head, "choices": [], "usage": usage(len(job.prompt), new)}
