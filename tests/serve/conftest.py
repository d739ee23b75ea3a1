"""A server for all tests, and OpenAI's own client of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
import torch

# `pip install foveate[serve]` brings what these tests are about
collect_ignore_glob = [] if all(map(importlib.util.find_spec, ("fastapi", "uvicorn", "openai"))) else ["*"]
if not collect_ignore_glob:
    from serve.serving import make_engine, serving


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def engine() -> Any:
    return make_engine()


@pytest.fixture(scope="session")
def address(engine: Any, _one_thread: None) -> Iterator[str]:
    with serving(engine) as address:
        yield address


@pytest.fixture(scope="session")
def client(address: str) -> Any:
    from openai import OpenAI

    return OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60)
