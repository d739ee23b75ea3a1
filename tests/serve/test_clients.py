"""Other people's clients: LangChain and litellm."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serve.test_requests import SAID_TEXT, written

pytestmark = pytest.mark.slow  # their imports take seconds


def got(client: str, address: str) -> Any:
    script = Path(__file__).with_name("other_clients.py")
    done = subprocess.run([sys.executable, str(script), client, address], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not importlib.util.find_spec("langchain_openai"), reason="langchain-openai is not installed")
def test_langchain(address: str, engine: Any) -> None:
    text, chat = written(engine, "the cat", 8), written(engine, SAID_TEXT, 8)
    assert got("langchain", address) == {
        "text": text,
        "streamed text": text,
        "texts": [text, written(engine, "a", 8)],
        "chat": chat,
        "streamed chat": chat,
        "tokens": 8,
        "response": chat,
    }


@pytest.mark.skipif(not importlib.util.find_spec("litellm"), reason="litellm is not installed")
def test_litellm(address: str, engine: Any) -> None:
    answers = got("litellm", address)
    assert "top_p is 7; it must be a number" in answers.pop("refused")
    chat = written(engine, SAID_TEXT, 8)
    assert answers == {"chat": chat, "streamed chat": chat, "text": written(engine, "the cat", 8)}
