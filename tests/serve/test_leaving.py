"""Clients that go away, and servers that are told to: nothing is written for nobody."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from foveate.data.tokenizer import make_tokenizer
from serve.serving import byte_model, make_engine, serving


@pytest.mark.parametrize("stream", [False, True])
def test_abandoned_requests_end(stream: bool) -> None:
    engine = make_engine(context=1 << 20)
    engine.ends = set()
    body = {"prompt": "a", "max_tokens": 1 << 19, "stream": stream, "n": 2}

    async def leave(address: str) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=address, timeout=30) as client:
            if stream:
                async with client.stream("POST", "/v1/completions", json=body) as answer:
                    await anext(answer.aiter_lines())
            else:
                task = asyncio.create_task(client.post("/v1/completions", json=body))
                while not (await client.get("/health")).json()["writing"]:
                    pass
                task.cancel()
            while (health := (await client.get("/health")).json())["writing"]:
                pass
            return dict(health)

    with serving(engine) as address:
        assert asyncio.run(leave(address)) == {"status": "ok", "waiting": 0, "writing": 0}


@pytest.mark.slow
def test_the_address_is_served_when_it_is_told_and_answers_end_at_the_next_token(tmp_path: Path) -> None:
    model = byte_model(walk="2@1 2@4 2@1", hidden_size=64, num_attention_heads=4, max_position_embeddings=1 << 16)
    model.save_pretrained(tmp_path / "moon")
    make_tokenizer("bytes", list).save_pretrained(tmp_path / "moon")
    command = [sys.executable, "-m", "foveate", "serve", str(tmp_path / "moon"), "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        found = re.fullmatch(r"moon at (http://127\.0\.0\.1:\d+)/v1 \(stop with Ctrl-C\)\n", line)
        assert found, line + server.stderr.read()
        body = {"prompt": "a", "max_tokens": 12_000, "stream": True, "logit_bias": {"256": -100}}
        with httpx.stream("POST", f"{found[1]}/v1/completions", json=body, timeout=30) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            server.send_signal(signal.SIGTERM)
            began = time.monotonic()
            events = [line.removeprefix("data: ") for line in lines if line]
        assert server.wait(timeout=20) == -signal.SIGTERM
        took = time.monotonic() - began
        assert json.loads(events[-2])["error"]["message"] == "this server is shutting down"
        assert events[-1] == "[DONE]"
        assert len(events) < 6000
        assert server.stderr.read() == ""
    print(f"ended {took:.2f} s after SIGTERM, {len(events)} events later")
