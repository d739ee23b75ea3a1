"""Tiny models of every sort on one shelf, and the page of it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from foveate import FoveateConfig, FoveateForCausalLM
from foveate.data.tokenizer import make_tokenizer

TEXT = (
    "The cat sat on a mat and saw how far away the old moon was. It said so! Then Anna came, and the cat sat on the "
    "naïve mat again — all night."
)
WALKS = {
    "hourglass": "1@1 1@4 1@1",
    "window": "1@1:window8 1@4 1@1:window8",
    "sink": "2@1:sink8",
    "fovea": "2@1:fovea8,groups=4,scales=4/16",
    "zoom": "2@1:zoom8,sinks=2,block=16,groups=8/4,keep=all/6,opened=3,thumbnails=8",
    "plain": "2@1",
}

# `pip install foveate[serve]` brings what these tests are about
collect_ignore_glob = [] if all(map(importlib.util.find_spec, ("fastapi", "uvicorn", "httpx"))) else ["*"]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: Any) -> Path:
    """``hourglass`` … of ``WALKS``, ``llama``, and ``text.txt``."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    tokenizer = make_tokenizer("bytes", list)
    for name, walk in WALKS.items():
        set_seed(3)
        ids = {"bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256}
        shape = {"vocab_size": 257, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
        config = FoveateConfig(walk=walk, max_position_embeddings=256, initializer_range=0.3, **shape, **ids)
        model = FoveateForCausalLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(3)  # attention that chooses
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    set_seed(4)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=257, max_position_embeddings=256, initializer_range=0.4, num_key_value_heads=1, **shape, **ids
        )
    )
    llama.save_pretrained(folder / "llama")
    tokenizer.save_pretrained(folder / "llama")
    return folder


@pytest.fixture(scope="session")
def shelf(folder: Path) -> Any:
    from foveate.pages.shelf import Shelf

    return Shelf([folder], device="cpu")


@pytest.fixture(scope="session")
def client(shelf: Any) -> Iterator[Any]:
    from starlette.testclient import TestClient

    from foveate.pages.server import build_pages

    with TestClient(build_pages(shelf), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def ask(client: Any) -> Any:
    """The result of some work, and what was told meanwhile."""

    def ask(name: str, **body: Any) -> tuple[Any, list[Any]]:
        answer = client.post(f"/api/{name}", json=body)
        assert answer.status_code == 200, answer.text
        *events, last = (json.loads(line) for line in answer.text.splitlines())
        assert "result" in last, last
        return last["result"], events

    return ask


@pytest.fixture(scope="session")
def demo(tmp_path_factory: Any) -> Any:
    """The folder of ``foveate demo``: a quick one, or the one that ``FOVEATE_DEMO`` names."""
    folder = tmp_path_factory.mktemp("demo")
    if made := os.environ.get("FOVEATE_DEMO"):
        shutil.copytree(made, folder, dirs_exist_ok=True)
    else:
        from foveate.cli import main

        assert main(["demo", "--quick", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def address(demo: Any) -> Iterator[str]:
    from foveate.pages.server import build_pages
    from foveate.pages.shelf import Shelf
    from foveate.serve.server import served

    app = build_pages(Shelf([demo], device="cpu"), hosts=("127.0.0.1",))
    with served(app, app.state.worker) as address:
        yield address


@pytest.fixture(scope="session")
def driver() -> Iterator[Any]:
    from pages.browser import browser

    with browser() as driver:
        yield driver
