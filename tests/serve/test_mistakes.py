"""What is not done is refused in one line that names it, in the shape clients show."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from serve.serving import CONTEXT

SAID = [{"role": "user", "content": "hi"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
LONG = "x" * CONTEXT
A = {"prompt": "a"}
C = {"messages": SAID}
R = {"input": "a"}
# endpoint, request, status, the argument named
MISTAKES: dict[str, tuple[str, Any, int, str | None]] = {
    "unknown model": ("completions", {**A, "model": "gpt-5"}, 404, "model"),
    "model of a wrong type": ("completions", {**A, "model": 5}, 400, "model"),
    "prompt too long": ("completions", {"prompt": LONG}, 400, "prompt"),
    "prompt too long, streamed": ("completions", {"prompt": LONG, "stream": True}, 400, "prompt"),
    "prompt of a wrong type": ("completions", {"prompt": 7}, 400, "prompt"),
    "prompt of nothing": ("completions", {"prompt": []}, 400, "prompt"),
    "prompts of mixed kinds": ("completions", {"prompt": ["a", 7]}, 400, "prompt[1]"),
    "ids outside": ("completions", {"prompt": [3, 999]}, 400, "prompt"),
    "ids below": ("completions", {"prompt": [-1]}, 400, "prompt"),
    "half a surrogate pair": ("completions", {"prompt": "\ud83d"}, 400, "prompt"),
    "too many answers": ("completions", {"prompt": ["a"] * 3, "n": 100}, 400, "n"),
    "too many prompts": ("completions", {"prompt": ["a"] * 200}, 400, "prompt"),
    "max_tokens of a wrong type": ("completions", {**A, "max_tokens": "many"}, 400, "max_tokens"),
    "max_tokens none": ("completions", {**A, "max_tokens": 0}, 400, "max_tokens"),
    "max_tokens negative": ("completions", {**A, "max_tokens": -1}, 400, "max_tokens"),
    "n none": ("completions", {**A, "n": 0}, 400, "n"),
    "n none in a chat": ("chat/completions", {**C, "n": 0}, 400, "n"),
    "best_of below n": ("completions", {**A, "n": 3, "best_of": 2}, 400, "best_of"),
    "best_of streamed": ("completions", {**A, "best_of": 2, "stream": True}, 400, "best_of"),
    "logprobs": ("completions", {**A, "logprobs": 21}, 400, "logprobs"),
    "logprobs true": ("completions", {**A, "logprobs": True}, 400, "logprobs"),
    "top_logprobs alone": ("chat/completions", {**C, "top_logprobs": 2}, 400, "top_logprobs"),
    "temperature negative": ("completions", {**A, "temperature": -1}, 400, "temperature"),
    "temperature of a wrong type": ("completions", {**A, "temperature": []}, 400, "temperature"),
    "temperature too high": ("completions", b'{"prompt": "a", "temperature": 1e999}', 400, "temperature"),
    "temperature no number": ("completions", b'{"prompt": "a", "temperature": NaN}', 400, None),
    "top_p": ("completions", {**A, "top_p": 2}, 400, "top_p"),
    "top_p none": ("completions", {**A, "top_p": 0}, 400, "top_p"),
    "min_p": ("completions", {**A, "min_p": 1.1}, 400, "min_p"),
    "top_k": ("completions", {**A, "top_k": 1.5}, 400, "top_k"),
    "presence_penalty": ("completions", {**A, "presence_penalty": 3}, 400, "presence_penalty"),
    "frequency_penalty": ("chat/completions", {**C, "frequency_penalty": "a"}, 400, "frequency_penalty"),
    "repetition_penalty": ("completions", {**A, "repetition_penalty": 0}, 400, "repetition_penalty"),
    "logit_bias of words": ("completions", {**A, "logit_bias": {"cat": 1}}, 400, "logit_bias"),
    "logit_bias too high": ("completions", {**A, "logit_bias": {"3": 101}}, 400, "logit_bias[3]"),
    "logit_bias outside": ("completions", {**A, "logit_bias": {"999": 1}}, 400, "logit_bias"),
    "seed": ("completions", {**A, "seed": 1.5}, 400, "seed"),
    "seed too large": ("completions", {**A, "seed": 10**30}, 400, "seed"),
    "stop": ("completions", {**A, "stop": 3}, 400, "stop"),
    "empty stop": ("completions", {**A, "stop": [""]}, 400, "stop"),
    "a long stop": ("completions", {**A, "stop": "x" * 100_000}, 400, "stop"),
    "many stops": ("completions", {**A, "stop": ["x"] * 17}, 400, "stop"),
    "stream": ("completions", {**A, "stream": "yes"}, 400, "stream"),
    "stream_options": ("completions", {**A, "stream": True, "stream_options": {"x": 1}}, 400, "stream_options"),
    "stream_options alone": ("chat/completions", {**C, "stream_options": {}, "n": 0}, 400, "n"),
    "suffix": ("completions", {**A, "suffix": "end"}, 400, "suffix"),
    "unknown argument": ("completions", {**A, "colour": "red"}, 400, "colour"),
    "generation_config": ("completions", {**A, "generation_config": '{"num_beams": 5000}'}, 400, "generation_config"),
    "num_beams": ("completions", {**A, "num_beams": 0}, 400, "num_beams"),
    "no messages": ("chat/completions", {}, 400, "messages"),
    "messages of a wrong type": ("chat/completions", {"messages": "hi"}, 400, "messages"),
    "no role": ("chat/completions", {"messages": [{"content": "a"}]}, 400, "messages[0].role"),
    "another role": ("chat/completions", {"messages": [{"role": "tool", "content": "a"}]}, 400, "messages[0].role"),
    "no content": ("chat/completions", {"messages": [{"role": "user"}]}, 400, "messages[0].content"),
    "an image": (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}]},
        400,
        "messages[0].content[1].type",
    ),
    "an image for a response": (
        "responses",
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        400,
        "input[0].content[0].type",
    ),
    "a name": ("chat/completions", {"messages": [{**SAID[0], "name": "me"}]}, 400, "messages[0].name"),
    "a call": ("chat/completions", {"messages": [{**SAID[0], "tool_calls": [{}]}]}, 400, "messages[0].tool_calls"),
    "chat too long": ("chat/completions", {"messages": SAID * 9}, 400, "messages"),
    "tools": ("chat/completions", {**C, "tools": [{"type": "function"}]}, 400, "tools"),
    "tool_choice": ("chat/completions", {**C, "tool_choice": "auto"}, 400, "tool_choice"),
    "response_format": ("chat/completions", {**C, "response_format": {"type": "json_object"}}, 400, "response_format"),
    "audio": ("chat/completions", {**C, "modalities": ["text", "audio"]}, 400, "modalities"),
    "two lengths": ("chat/completions", {**C, "max_tokens": 3, "max_completion_tokens": 4}, 400, "max_tokens"),
    "store": ("chat/completions", {**C, "store": True}, 400, "store"),
    "max_output_tokens none": ("responses", {**R, "max_output_tokens": 0}, 400, "max_output_tokens"),
    "max_output_tokens negative": ("responses", {**R, "max_output_tokens": -5}, 400, "max_output_tokens"),
    "previous_response_id": ("responses", {**R, "previous_response_id": "resp_1"}, 400, "previous_response_id"),
    "a stored prompt": ("responses", {**R, "prompt": {"id": "p"}}, 400, "prompt"),
    "tools of a response": ("responses", {**R, "tools": [{"type": "web_search"}]}, 400, "tools"),
    "text of a form": ("responses", {**R, "text": {"format": {"type": "json_schema"}}}, 400, "text.format"),
    "no input": ("responses", {}, 400, "input"),
    "other items": ("responses", {"input": [{"type": "item_reference", "id": "x"}]}, 400, "input[0].type"),
    "a list": ("completions", [1, 2], 400, None),
    "not JSON": ("completions", b"{", 400, None),
    "deep JSON": ("completions", b"[" * 100_000, 400, None),
    "a number of 5,000 digits": ("completions", b'{"seed": 1' + b"0" * 5000 + b"}", 400, None),
    "not UTF-8": ("completions", b'{"prompt": "\xff"}', 400, None),
    "no such path": ("embeddings", A, 404, None),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_get_a_4xx_that_names_the_argument(address: str, mistake: str) -> None:
    path, body, status, param = MISTAKES[mistake]
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = httpx.post(f"{address}/v1/{path}", content=data, headers={"Content-Type": "application/json"}, timeout=30)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert len(error["message"].splitlines()) == 1
    assert param is None or param.partition("[")[0] in error["message"]


def test_clients_show_the_message(client: Any) -> None:
    from openai import BadRequestError, NotFoundError

    with pytest.raises(BadRequestError, match="temperature is 9; it must be a number from 0 to 2"):
        client.completions.create(model="moon", prompt="a", temperature=9)
    with pytest.raises(NotFoundError, match="model is 'sun'; this server has 'moon' alone"):
        client.models.retrieve("sun")


def test_other_methods_are_told(address: str) -> None:
    answer = httpx.get(f"{address}/v1/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "see /docs" in answer.json()["error"]["message"]
