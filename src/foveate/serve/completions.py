"""``/v1/completions``: texts that go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from foveate.data.decode import decode_text
from foveate.data.prompt import document_mark
from foveate.serve.engine import Event, Job, Token
from foveate.serve.errors import bad
from foveate.serve.fields import COMPLETIONS, MOST_ANSWERS, parse
from foveate.serve.reply import CLIENT_GONE, Reply, Service, Written, answer_json, new_id, now, server_sent, usage
from foveate.serve.spelling import CompletionLogProbs, Speller

DEFAULT_TOKENS = 16  # as the protocol has it


@dataclass(frozen=True)
class Asked:
    """A request for completions: ``answers`` are written for each prompt and ``n`` of them returned."""

    prompts: list[list[int]]
    marked: list[bool]  # prompts that begin with a mark the client did not send
    n: int
    answers: int
    echo: bool
    log_probs: int | None

    @property
    def tokens(self) -> int:
        return sum(map(len, self.prompts))


async def complete(service: Service, speller: Speller, request: Request, body: Any) -> Response:
    values = parse(body, COMPLETIONS)
    service.check_model(values)
    echo, log_probs = values.get("echo", False), values.get("logprobs")
    n = values.get("n", 1)
    answers = values.get("best_of", n)
    if answers < n:
        raise bad(f"best_of is {answers}; it must be at least n, which is {n}", "best_of")
    if answers > n and values.get("stream"):
        raise bad("best_of cannot be streamed: which answers are best shows at the end; leave it out", "best_of")
    if values.get("max_tokens") == 0 and not echo:
        raise bad("max_tokens is 0; without echo it must be at least 1", "max_tokens")
    if values.get("stream_options") and not values.get("stream"):
        raise bad("stream_options is for streams; set stream to true or leave it out", "stream_options")
    given = values.get("prompt")
    prompts = await service.reader.prompts(given)
    if len(prompts) * answers > MOST_ANSWERS:
        name = "best_of" if "best_of" in values else "n"
        raise bad(f"{len(prompts)} prompts times {name} {answers} are more than {MOST_ANSWERS} answers", name)
    asked = Asked(prompts, _marked(service, given, prompts), n, answers, echo, log_probs)
    sampling = service.sampling(values)
    reply = Reply(service.engine)
    jobs = [
        Job(
            prompt,
            sampling,
            reply.deliver,
            service.room(prompt, values.get("max_tokens"), DEFAULT_TOKENS, "prompt"),
            place=place,
            answers=answers,
            stops=values.get("stop", ()),
            log_probs=log_probs if log_probs is not None or answers == n else 0,  # what best_of goes by
            score=echo and log_probs is not None,
        )
        for place, prompt in enumerate(prompts)
    ]
    reply.begin(jobs)
    head = {"id": new_id("cmpl-"), "object": "text_completion", "created": now(), "model": service.name}
    if values.get("stream"):
        with_usage = (values.get("stream_options") or {}).get("include_usage", False)
        return server_sent(_chunks(service, speller, reply, asked, head, with_usage))
    written = await reply.whole(request)
    if written is None:
        return Response(status_code=CLIENT_GONE)
    choices: list[Mapping[str, Any]] = []
    for place, of_prompt in enumerate(written):
        for answer in _best(of_prompt, n):
            choices.append(_choice(service, speller, asked, place, answer, len(choices)))
    new = sum(len(answer.tokens) for of_prompt in written for answer in of_prompt)
    return answer_json({**head, "choices": choices, "usage": usage(asked.tokens, new)})


def _marked(service: Service, given: Any, prompts: list[list[int]]) -> list[bool]:
    """Which prompts begin with a mark that their text or ids did not."""
    many = isinstance(given, list) and not (given and type(given[0]) is int)
    texts = given if many else [given]
    mark = document_mark(service.reader.tokenizer) if not all(isinstance(t, list) and t for t in texts) else None
    return [not (isinstance(t, list) and t) and ids[:1] == [mark] for t, ids in zip(texts, prompts, strict=True)]


def _best(answers: Sequence[Written], n: int) -> Sequence[Written]:
    """The ``n`` with the highest log probability per token."""
    if n == len(answers):
        return answers

    def per_token(answer: Written) -> float:
        return sum(token.log_prob or 0.0 for token in answer.tokens) / max(len(answer.tokens), 1)

    return sorted(answers, key=per_token, reverse=True)[:n]


def _prompt_text(service: Service, asked: Asked, place: int) -> str:
    ids = asked.prompts[place]
    if asked.marked[place]:
        return decode_text(service.reader.tokenizer, ids[1:], ids[:1])
    return decode_text(service.reader.tokenizer, ids)


def _shown_prompt(asked: Asked, place: int, read: Sequence[Token]) -> Sequence[Token]:
    return read[1:] if asked.marked[place] else read


def _choice(
    service: Service, speller: Speller, asked: Asked, place: int, answer: Written, index: int
) -> Mapping[str, Any]:
    text, log_probs = answer.text, None
    if asked.echo:
        text = _prompt_text(service, asked, place) + text
    if asked.log_probs is not None:
        log_probs = CompletionLogProbs(speller).of([*_shown_prompt(asked, place, answer.read), *answer.tokens])
    return {"index": index, "text": text, "logprobs": log_probs, "finish_reason": answer.finish}


async def _chunks(
    service: Service, speller: Speller, reply: Reply, asked: Asked, head: Mapping[str, Any], with_usage: bool
) -> AsyncIterator[tuple[None, Any]]:
    forms: dict[tuple[int, int], CompletionLogProbs] = {}
    waiting: dict[tuple[int, int], list[Token]] = {}  # tokens whose text has not come yet
    echoed: set[tuple[int, int]] = set()
    new = 0

    def chunk(event: Event) -> dict[str, Any] | None:
        who = (event.prompt, event.number)
        tokens = waiting.setdefault(who, [])
        if event.read is not None:
            tokens.extend(_shown_prompt(asked, event.prompt, event.read))
            return None
        text = event.text
        tokens.extend(event.tokens)
        if not text and event.finish is None:
            return None
        if asked.echo and who not in echoed:
            echoed.add(who)
            text = _prompt_text(service, asked, event.prompt) + text
        log_probs = None
        if asked.log_probs is not None:
            log_probs = forms.setdefault(who, CompletionLogProbs(speller)).of(tokens)
        waiting[who] = []
        index = event.prompt * asked.n + event.number
        return {"index": index, "text": text, "logprobs": log_probs, "finish_reason": event.finish}

    async for events in reply.events():
        for event in events:
            new += len(event.tokens)
            choice = chunk(event)
            if choice is not None:
                yield None, {**head, "choices": [choice], **({"usage": None} if with_usage else {})}
    if with_usage:
        yield None, {**head, "choices": [], "usage": usage(asked.tokens, new)}
