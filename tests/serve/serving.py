"""A server in this process, on a port of its own, with a tiny model of random weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from foveate import FoveateForCausalLM
from foveate.data.tokenizer import make_tokenizer
from foveate.serve import build_app, build_engine, served
from foveate.serve.engine import Engine
from hf.models import make_model

CONTEXT = 64


def byte_model(**changes: Any) -> FoveateForCausalLM:
    shape = {"walk": "1@1 1@4 1@1", "vocab_size": 258, "bos_token_id": 256}
    model = make_model("hourglass", dtype=torch.float32, **{**shape, **changes})
    with torch.no_grad():
        model.lm_head.weight[128:256] *= 0.2  # few bytes that are no text
        model.lm_head.weight[256:] = 0  # and hardly an end
    return model


def byte_tokenizer() -> Any:
    return make_tokenizer("bytes", list)


def make_engine(model: Any = None, tokenizer: Any = None, **limits: int) -> Engine:
    model = byte_model() if model is None else model
    return build_engine(model, tokenizer or byte_tokenizer(), **{"context": CONTEXT, **limits})


@contextlib.contextmanager
def serving(engine: Engine, *, keep_alive: int = 30, **options: Any) -> Iterator[str]:
    """The address while it is served, in a thread."""
    app = build_app(engine, **{"name": "moon", "hosts": ("127.0.0.1",), **options})
    with served(app, engine, keep_alive=keep_alive) as address:
        yield address
