"""One file with the document mark spelled out inside: whatever reads it, the model is given the same ids.

What it is given is seen where it enters the model: at the embedding.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from foveate import load
from foveate.cli import main
from foveate.data.tokenizer import END_OF_TEXT
from foveate.train.run import train
from foveate.train.settings import TrainSettings
from serve.serving import make_engine, serving

MARK = 256
TEXT = f"One text{END_OF_TEXT}, naïve."
AS_TEXT = [MARK, *TEXT.encode()]  # by arithmetic: a document begins after the mark, and a byte is an id
AS_TOKENS = [MARK, *b"One text", MARK, *", naïve.".encode()]
BEFORE = "before"
CONTEXT = len(BEFORE) + 1 + len(TEXT.encode()) + 1  # a block holds the whole corpus


@contextlib.contextmanager
def seen() -> Iterator[list[int]]:
    """All ids that any embedding is given, one after the other."""
    ids: list[int] = []

    def look(module: Any, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, torch.nn.Embedding):
            ids.extend(inputs[0].flatten().tolist())

    hook = register_module_forward_pre_hook(look)
    try:
        yield ids
    finally:
        hook.remove()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    (folder / "data").mkdir()
    (folder / "data" / "a.txt").write_text(BEFORE)
    (folder / "data" / "b.txt").write_text(TEXT, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> list[int]:
    """What training gave the model, which is in ``run``."""
    shape = {"walk": "1@1 1@4 1@1", "hidden": 32, "heads": 2, "context": CONTEXT, "batch": 1, "tokens": CONTEXT}
    settings = TrainSettings(
        **shape,
        data=(str(folder / "data"),),
        valid_fraction=0,
        tokenizer="bytes",
        device="cpu",
        out=str(folder / "run"),
    )
    with pytest.MonkeyPatch.context() as patch, seen() as ids:
        patch.setenv("FOVEATE_CACHE", str(folder / "cache"))
        train(settings)
    return ids


def evaluate(folder: Path, *flags: str) -> None:
    assert main(["eval", str(folder / "run"), "--data", str(folder / "data" / "b.txt"), *flags]) == 0


def sample(folder: Path, *flags: str) -> None:
    assert main(["sample", str(folder / "run"), "--prompt", TEXT, "--tokens", "1", "--greedy", *flags]) == 0


def serve(folder: Path, *flags: str) -> None:
    with serving(make_engine(*load(folder / "run")), special_tokens=bool(flags)) as address:
        wanted = {"model": "moon", "prompt": TEXT, "max_tokens": 1}
        answer = httpx.post(f"{address}/v1/completions", json=wanted, timeout=60)
    assert answer.json()["usage"]["prompt_tokens"] == len(AS_TOKENS if flags else AS_TEXT)


def lm_eval(folder: Path, *flags: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("lm_eval")
        from lm_eval.api.instance import Instance

        from foveate.tasks import make_harness

        harness = make_harness(*load(folder / "run"), context=CONTEXT, batch=1, special_tokens=bool(flags))
        request = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(TEXT,), idx=0)
        harness.loglikelihood_rolling([request])


def test_in_training_it_is_text(trained: list[int]) -> None:
    assert trained == [*BEFORE.encode(), *AS_TEXT, MARK]


@pytest.mark.parametrize(("flags", "expected"), [((), AS_TEXT), (("--special-tokens",), AS_TOKENS)])
@pytest.mark.parametrize("way", [evaluate, sample, serve, pytest.param(lm_eval, marks=pytest.mark.slow)])
def test_everywhere_else_too_unless_asked(
    folder: Path, trained: list[int], way: Callable[..., None], flags: tuple[str, ...], expected: list[int]
) -> None:
    with seen() as ids:
        way(folder, *flags)
    scored = way in (evaluate, lm_eval)  # the last token of what is scored is predicted, not read
    assert ids == (expected[:-1] if scored else expected)
