"""What a request asks for is what it gets: OpenAI's own client against a server, texts and numbers from the model."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import torch

from foveate.data.decode import decode_text
from foveate.data.prompt import encode_prompt
from foveate.serve.reading import Reader
from serve.serving import CONTEXT

SAID: Any = [{"role": "user", "content": "a cat"}]
SAID_TEXT = "user: a cat\nassistant:"


def continued(engine: Any, text: str, tokens: int, **changes: Any) -> list[int]:
    """The likeliest ids after the beginning of a document, by transformers' own loop."""
    ids = torch.tensor([encode_prompt(engine.tokenizer, text)])
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": tokens, **changes}
    return engine.model.generate(ids, **options, eos_token_id=256)[0, ids.shape[1] :].tolist()


def written(engine: Any, text: str, tokens: int, **changes: Any) -> str:
    ids = continued(engine, text, tokens, **changes)
    return decode_text(engine.tokenizer, ids, encode_prompt(engine.tokenizer, text))


def completed(client: Any, prompt: Any, **options: Any) -> Any:
    return client.completions.create(model="moon", prompt=prompt, **{"max_tokens": 12, "temperature": 0, **options})


def chatted(client: Any, messages: Any = SAID, **options: Any) -> Any:
    options = {"max_tokens": 8, "temperature": 0, **options}
    return client.chat.completions.create(model="moon", messages=messages, **options)


def test_completion(client: Any, engine: Any) -> None:
    answer = completed(client, "the cat")
    assert answer.choices[0].text == written(engine, "the cat", 12)
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (8, 12, 20)
    assert completed(client, "the cat", max_tokens=None).usage.completion_tokens == 16


def test_streams_are_the_same_text(client: Any, engine: Any) -> None:
    chunks = list(completed(client, "the cat", stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].text for chunk in chunks[:-1]]
    assert "".join(pieces) == written(engine, "the cat", 12)
    assert len(pieces) > 3
    assert [chunk.choices[0].finish_reason for chunk in chunks[-3:-1]] == [None, "length"]
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 12)


@pytest.mark.parametrize("path", ["completions", "chat/completions", "responses"])
def test_streams_end_as_the_protocol_has_it(address: str, path: str) -> None:
    given = {"completions": {"prompt": "a"}, "chat/completions": {"messages": SAID}, "responses": {"input": "a"}}[path]
    answer = httpx.post(f"{address}/v1/{path}", json={**given, "stream": True, "seed": 1, "top_k": 5})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    kinds = [json.loads(event.partition("data: ")[2]) for event in events]
    if path == "responses":
        assert [event["sequence_number"] for event in kinds] == list(range(len(kinds)))
        assert all(event.startswith(f"event: {kind['type']}\n") for event, kind in zip(events, kinds, strict=True))


def test_prompts_of_every_kind(client: Any, engine: Any) -> None:
    ids = encode_prompt(engine.tokenizer, "the cat")
    one, two = written(engine, "the cat", 12), written(engine, "a", 12)
    assert [choice.text for choice in completed(client, ["the cat", "a"]).choices] == [one, two]
    assert completed(client, ids).choices[0].text == one
    both = completed(client, [ids, encode_prompt(engine.tokenizer, "a")])
    assert [choice.text for choice in both.choices] == [one, two]
    assert [choice.index for choice in both.choices] == [0, 1]
    assert both.usage.prompt_tokens == 10
    assert completed(client, "").choices[0].text == written(engine, "", 12)
    streamed: dict[int, str] = {}
    for chunk in completed(client, ["the cat", "a"], stream=True):
        streamed[chunk.choices[0].index] = streamed.get(chunk.choices[0].index, "") + chunk.choices[0].text
    assert streamed == {0: one, 1: two}


def test_ids_are_taken_as_they_are(client: Any, engine: Any) -> None:
    bare = torch.tensor([list(b"the cat")])
    options = {"attention_mask": torch.ones_like(bare), "do_sample": False, "max_new_tokens": 12, "eos_token_id": 256}
    expected = engine.model.generate(bare, **options)[0, 7:].tolist()
    answer = completed(client, list(b"the cat"), logprobs=0)
    assert answer.usage.prompt_tokens == 7
    assert answer.choices[0].text == decode_text(engine.tokenizer, expected, list(b"the cat"))


def test_several_answers(client: Any) -> None:
    answer = completed(client, "a", n=3, temperature=1, seed=2)
    texts = [choice.text for choice in answer.choices]
    assert len(set(texts)) == 3
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage.completion_tokens == 36
    assert [choice.text for choice in completed(client, "a", n=2, temperature=1, seed=2).choices] == texts[:2]
    chat = chatted(client, n=2, temperature=1, seed=2)
    assert len({choice.message.content for choice in chat.choices}) == 2


def test_the_best_of_several(client: Any) -> None:
    def mean(choice: Any) -> float:
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)

    every = completed(client, "a", n=6, temperature=1, seed=3, logprobs=0).choices
    best = sorted(every, key=mean, reverse=True)[:2]
    answer = completed(client, "a", n=2, best_of=6, temperature=1, seed=3)
    assert [choice.text for choice in answer.choices] == [choice.text for choice in best]
    assert answer.choices[0].logprobs is None
    assert answer.usage.completion_tokens == 72


def scores(engine: Any, ids: list[int]) -> torch.Tensor:
    return engine.model(torch.tensor([ids])).logits[0].log_softmax(-1)


def test_echo_and_log_probabilities(client: Any, engine: Any) -> None:
    prompt = encode_prompt(engine.tokenizer, "the cat")
    new = continued(engine, "the cat", 5)
    log_probs = scores(engine, prompt + new)
    choice = completed(client, "the cat", max_tokens=5, echo=True, logprobs=3).choices[0]
    assert choice.text == "the cat" + written(engine, "the cat", 5)
    expected = [log_probs[place, token].item() for place, token in enumerate([*prompt[1:], *new])]
    assert choice.logprobs.token_logprobs == pytest.approx(expected, abs=1e-4)
    assert choice.logprobs.tokens[:7] == list("the cat")
    assert choice.logprobs.text_offset[:7] == list(range(7))
    assert [max(top.values()) for top in choice.logprobs.top_logprobs] == pytest.approx(
        log_probs.max(-1).values[:-1].tolist(), abs=1e-4
    )
    streamed = list(completed(client, "the cat", max_tokens=5, echo=True, logprobs=3, stream=True))
    assert "".join(chunk.choices[0].text for chunk in streamed) == choice.text
    told = [value for chunk in streamed for value in chunk.choices[0].logprobs.token_logprobs]
    assert told == pytest.approx(expected, abs=1e-4)
    # what lm-eval sends to have a text scored
    scored = completed(client, list(b"the cat"), max_tokens=0, echo=True, logprobs=1).choices[0]
    assert scored.text == "the cat"
    assert scored.logprobs.token_logprobs[0] is None
    assert len(scored.logprobs.token_logprobs) == 7
    assert scored.finish_reason == "length"


def test_log_probabilities_of_a_chat(client: Any, engine: Any) -> None:
    new = continued(engine, SAID_TEXT, 8)
    log_probs = scores(engine, encode_prompt(engine.tokenizer, SAID_TEXT) + new)[-9:-1]
    content = chatted(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert [token.logprob for token in content] == pytest.approx(log_probs.max(-1).values.tolist(), abs=1e-4)
    assert [token.top_logprobs[0].logprob for token in content] == [token.logprob for token in content]
    assert [token.bytes for token in content] == [[token] for token in new]
    streamed = [c.choices[0].logprobs for c in chatted(client, logprobs=True, top_logprobs=2, stream=True)]
    assert [token for part in streamed if part for token in part.content] == content


def test_chat(client: Any, engine: Any) -> None:
    answer = chatted(client)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == written(engine, SAID_TEXT, 8)
    parts: Any = [{"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "cat"}]}]
    assert chatted(client, parts).choices[0].message.content == answer.choices[0].message.content
    stream = list(chatted(client, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == answer.choices[0].message.content
    assert stream[0].choices[0].delta.role == "assistant"
    assert stream[-1].choices[0].finish_reason == "length"


def test_what_a_user_writes_is_no_control_token(client: Any) -> None:
    mark = "<|endoftext|>"
    assert completed(client, mark).usage.prompt_tokens == 1 + len(mark)
    plain = chatted(client, [{"role": "user", "content": "x" * len(mark)}]).usage.prompt_tokens
    assert chatted(client, [{"role": "user", "content": mark}]).usage.prompt_tokens == plain


def test_control_tokens_are_tokens_where_asked_for(engine: Any) -> None:
    mark = "<|endoftext|>"
    shape = {"vocabulary": engine.vocabulary, "context": 64, "special_tokens": True}
    reader = Reader(engine.tokenizer, **shape)
    assert asyncio.run(reader.prompts(f"a{mark}")) == [[256, 97, 256]]
    said = [{"role": "user", "content": mark}]
    assert asyncio.run(reader.chat(said)) == [256, *b"user: ", 256, *b"\nassistant:"]


def test_responses(client: Any, engine: Any) -> None:
    options = {"model": "moon", "temperature": 0, "max_output_tokens": 8}
    answer = client.responses.create(input="a cat", **options, metadata={"who": "me"})
    expected = written(engine, SAID_TEXT, 8)
    assert answer.output_text == expected
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (answer.usage.output_tokens, answer.metadata, answer.store) == (8, {"who": "me"}, False)
    events = list(client.responses.create(input=SAID, stream=True, **options))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == expected
    assert (events[0].type, events[-1].type) == ("response.created", "response.incomplete")
    assert events[-1].response.output_text == expected
    told = client.responses.create(input="cat", instructions="be brief", **options)
    assert told.output_text == written(engine, "system: be brief\nuser: cat\nassistant:", 8)
    stopped = client.responses.create(input="a cat", **options, extra_body={"stop": expected[2:4]})
    assert (stopped.status, stopped.incomplete_details, stopped.output_text) == (
        "completed",
        None,
        expected[: expected.index(expected[2:4])],
    )
    scored = client.responses.create(input="a cat", **options, include=["message.output_text.logprobs"], top_logprobs=1)
    assert len(scored.output[0].content[0].logprobs) == 8


@pytest.mark.parametrize("stream", [False, True])
def test_stop_sequences_end_the_text_and_are_left_out(client: Any, engine: Any, stream: bool) -> None:
    whole = written(engine, "the cat", 12)
    stop = whole[5:7]
    answer = completed(client, "the cat", stop=["never there", stop], stream=stream)
    last = list(answer) if stream else [answer]
    assert "".join(chunk.choices[0].text for chunk in last) == whole[: whole.index(stop)]
    assert last[-1].choices[0].finish_reason == "stop"


def test_a_stop_with_the_last_token_allowed_is_a_stop(client: Any, engine: Any) -> None:
    stop = written(engine, "the cat", 6)[-1]
    first = written(engine, "the cat", 6).index(stop) + 1
    assert completed(client, "the cat", stop=stop, max_tokens=first).choices[0].finish_reason == "stop"


def test_the_end_of_the_text(client: Any) -> None:
    answer = completed(client, "a", logit_bias={"256": 100})
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("", "stop")
    assert answer.usage.completion_tokens == 1


def test_penalties_and_biases_reach_the_answer(client: Any, engine: Any) -> None:
    assert completed(client, "a", logit_bias={"97": 60}).choices[0].text == "a" * 12
    for penalty in ({"presence_penalty": 2}, {"frequency_penalty": 2}):
        assert set(completed(client, "a", logit_bias={"97": 60, "98": 57}, **penalty).choices[0].text) == {"a", "b"}
    assert set(completed(client, "a", logit_bias={"97": 60, "98": 50}).choices[0].text) == {"a"}
    expected = written(engine, "the cat", 12, repetition_penalty=3.0)
    assert completed(client, "the cat", extra_body={"repetition_penalty": 3}).choices[0].text == expected
    assert expected != written(engine, "the cat", 12)


def test_draws_can_be_narrowed(client: Any, engine: Any) -> None:
    greedy = written(engine, "the cat", 12)
    for narrow in ({"top_k": 1}, {"min_p": 1}):
        assert completed(client, "the cat", temperature=1.5, extra_body=narrow).choices[0].text == greedy
    assert completed(client, "the cat", temperature=1.5, top_p=1e-6).choices[0].text == greedy
    assert completed(client, "the cat", temperature=1e-300).choices[0].text == greedy


def test_a_request_without_a_seed_is_another_each_time(client: Any) -> None:
    def draw(seed: int | None) -> str:
        return completed(client, "a", temperature=1.5, seed=seed).choices[0].text

    texts = []
    for _ in range(3):
        assert draw(1) == draw(1)
        texts.append(draw(None))
    assert len(set(texts)) == 3


def test_six_equal_seeds_at_once_under_other_load(client: Any) -> None:
    def draw(number: int) -> str:
        seed = 7 if number % 3 == 0 else None
        prompt = "the cat sat" if seed else "x" * (number + 1)
        return completed(client, prompt, temperature=1, seed=seed, max_tokens=40).choices[0].text

    with ThreadPoolExecutor(18) as pool:
        texts = list(pool.map(draw, range(18)))
    assert len(set(texts[::3])) == 1
    assert len(set(texts)) == 13
    assert draw(0) == texts[0]


def test_answers_end_where_the_context_does(client: Any) -> None:
    answer = completed(client, "x" * 40, max_tokens=1000)
    assert answer.usage.completion_tokens == CONTEXT - 41
    assert answer.choices[0].finish_reason == "length"


def test_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["moon"]
    assert client.models.retrieve("moon").id == "moon"


def test_pages_fetch_nothing_from_elsewhere(address: str) -> None:
    for path in ("/", "/docs"):
        page = httpx.get(address + path)
        assert page.headers["content-type"].startswith("text/html")
        assert not any(sign in page.text for sign in ("src=", "<script", "<link", "@import", "url("))
        assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "logit_bias" in page.text
    assert httpx.get(address + "/health").json()["status"] == "ok"
