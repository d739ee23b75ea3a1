"""``foveate serve`` under OpenAI's own client: what it answers, and what it survives."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from foveate import load
from foveate.cli import main

NEEDED = ("openai", "fastapi", "uvicorn")
INSTALLED = all(importlib.util.find_spec(name) for name in NEEDED)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INSTALLED, reason=f"{', '.join(NEEDED)} are not installed")]


@pytest.fixture(scope="module")
def address(trained_run: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "foveate", "serve", str(trained_run), "--port", "0", "--name", "moon"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        found = re.match(r"moon at (http://127\.0\.0\.1:\d+)/v1", line)
        assert found, line + server.stderr.read()
        yield found[1]
        assert server.poll() is None, "the server died"
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 130


@pytest.fixture
def client(address: str) -> Any:
    from openai import OpenAI

    return OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def greedy(trained_run: Path) -> str:
    """What follows "the cat", 12 tokens of it."""
    model, tokenizer = load(trained_run)
    ids = tokenizer("the cat", return_tensors="pt").input_ids
    return tokenizer.decode(model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :])


def test_completion(client: Any, greedy: str) -> None:
    answer = client.completions.create(model="moon", prompt="the cat", max_tokens=12, temperature=0)
    assert answer.choices[0].text == greedy
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (8, 12)


def test_streams_are_the_same_text(client: Any, greedy: str) -> None:
    stream = client.completions.create(model="moon", prompt="the cat", max_tokens=12, temperature=0, stream=True)
    pieces = [chunk.choices[0].text for chunk in stream]
    assert "".join(pieces) == greedy
    assert len(pieces) > 3


def test_chat(client: Any) -> None:
    said: Any = [{"role": "user", "content": "a cat"}]
    answer = client.chat.completions.create(model="moon", messages=said, max_tokens=5, temperature=0)
    assert answer.choices[0].message.role == "assistant"
    content = answer.choices[0].message.content
    assert content
    stream = client.chat.completions.create(model="moon", messages=said, max_tokens=5, temperature=0, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == content


@pytest.mark.parametrize("stream", [False, True])
def test_stop_sequences_end_the_text_and_are_left_out(client: Any, greedy: str, stream: bool) -> None:
    stop = greedy[5:7]
    answer = client.completions.create(
        model="moon", prompt="the cat", max_tokens=12, temperature=0, stop=["never there", stop], stream=stream
    )
    text = "".join(chunk.choices[0].text for chunk in answer) if stream else answer.choices[0].text
    assert text == greedy[: greedy.index(stop)]


def test_temperature_samples_and_a_seed_repeats(client: Any) -> None:
    def draw(seed: int) -> str:
        return (
            client.completions.create(model="moon", prompt="a", max_tokens=12, temperature=1.5, seed=seed)
            .choices[0]
            .text
        )

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(5)}) > 1


def test_twenty_at_once(client: Any) -> None:
    prompts = [f"{'the cat ' * (n % 3)}{n}" for n in range(20)]

    def ask(prompt: str) -> str:
        return client.completions.create(model="moon", prompt=prompt, max_tokens=6, temperature=0).choices[0].text

    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(ask, prompts))
    assert together == [ask(prompt) for prompt in prompts]


def test_models_and_an_empty_prompt(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["moon"]
    assert client.completions.create(model="moon", prompt="", max_tokens=3).usage.completion_tokens == 3


def test_answers_end_where_the_context_does(client: Any) -> None:
    answer = client.completions.create(model="moon", prompt="x" * 20, max_tokens=1000, temperature=0)
    assert answer.usage.completion_tokens == 11
    assert answer.choices[0].finish_reason == "length"


SAID = [{"role": "user", "content": "hi"}]
MISTAKES: dict[str, tuple[str, Any, str]] = {
    "unknown model": ("completions", {"model": "gpt-5", "prompt": "a"}, "gpt-5"),
    "model of a wrong type": ("completions", {"model": 5, "prompt": "a"}, "5"),
    "prompt too long": ("completions", {"prompt": "x" * 33}, "34 tokens"),
    "prompt too long, streamed": ("completions", {"prompt": "x" * 33, "stream": True}, "34 tokens"),
    "prompt of a wrong type": ("completions", {"prompt": 7}, "prompt"),
    "several prompts": ("completions", {"prompt": ["a", "b"]}, "prompt"),
    "max_tokens of a wrong type": ("completions", {"prompt": "a", "max_tokens": "many"}, "max_tokens"),
    "max_tokens none": ("completions", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
    "temperature negative": ("completions", {"prompt": "a", "temperature": -1}, "temperature"),
    "temperature of a wrong type": ("completions", {"prompt": "a", "temperature": []}, "temperature"),
    "top_p": ("completions", {"prompt": "a", "top_p": 2}, "top_p"),
    "seed": ("completions", {"prompt": "a", "seed": 1.5}, "seed"),
    "stop": ("completions", {"prompt": "a", "stop": 3}, "stop"),
    "empty stop": ("completions", {"prompt": "a", "stop": [""]}, "stop"),
    "stream": ("completions", {"prompt": "a", "stream": "yes"}, "stream"),
    "unknown field": ("completions", {"prompt": "a", "colour": "red"}, "colour"),
    "configuration": ("completions", {"prompt": "a", "generation_config": "{not json"}, "cannot be answered"),
    "cache": ("completions", {"prompt": "a", "generation_config": '{"cache_implementation": "static"}'}, "static"),
    "no messages": ("chat/completions", {}, "messages"),
    "messages of a wrong type": ("chat/completions", {"messages": "hi"}, "messages"),
    "no role": ("chat/completions", {"messages": [{"content": "a"}]}, "role"),
    "content of a wrong type": ("chat/completions", {"messages": [{"role": "user", "content": 3}]}, "content"),
    "chat too long": ("chat/completions", {"messages": SAID * 9}, "tokens"),
    "a list": ("completions", [1, 2], "dict"),
    "not JSON": ("completions", b"{", "JSON"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_get_a_4xx_with_a_message(address: str, mistake: str) -> None:
    path, body, message = MISTAKES[mistake]
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/v1/{path}", data, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    with caught.value as error:
        assert 400 <= error.code < 500
        assert message in str(json.loads(error.read()))


def test_nobody_unloads_the_model_or_loads_another(address: str, client: Any) -> None:
    for path, body in (("reset", {}), ("load_model", {"model": "some/other"})):
        request = urllib.request.Request(
            f"{address}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read().decode()
        assert path == "reset" or "moon" in text
    assert client.completions.create(prompt="a", model="moon", max_tokens=2).usage.completion_tokens == 2


def test_a_client_that_leaves_does_not_block_others(client: Any) -> None:
    stream = client.completions.create(model="moon", prompt="a", max_tokens=30, stream=True)
    next(iter(stream))
    stream.close()
    assert client.completions.create(model="moon", prompt="a", max_tokens=2).usage.completion_tokens == 2


def test_an_address_that_is_taken_is_a_line(
    address: str, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(trained_run), "--port", address.rpartition(":")[2]]) == 2
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


def test_stop_sequences_over_several_pieces() -> None:
    import asyncio

    from foveate.serve import StopQueue

    def through(pieces: list[Any], stops: list[str]) -> list[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for piece in [*pieces, None]:
            queue.put_nowait(piece)
        out, stopped = [], StopQueue(queue, stops)
        while (item := stopped.get_nowait()) is not None:
            out.append(item)
        return out

    assert through(["ab", "c", "de"], ["cd"]) == ["ab"]
    assert through(["ab", "c", "xe"], ["cd"]) == ["ab", "cxe"]
    assert through(["aaa", "ab"], ["aab"]) == ["a", "a"]
    assert through(["abc"], ["cd"]) == ["ab", "c"]
    assert through(["a", "b"], ["zz", "ab"]) == []
