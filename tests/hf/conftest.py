"""A tiny model of every family, and a run directory as training leaves it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from foveate import FoveateForCausalLM
from hf.models import FAMILIES, make_model

TEXT = "the cat sat on a mat and saw how far away the naïve old moon — so it said — was this night"


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> FoveateForCausalLM:
    return make_model(request.param)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from foveate.train.run import train
    from foveate.train.settings import TrainSettings

    folder = tmp_path_factory.mktemp("trained")
    draw = random.Random(0)
    text = folder / "words.txt"
    text.write_text(" ".join(draw.choice(TEXT.split()) for _ in range(2000)), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(folder / "cache"))
        shape = {"walk": "1@1 1@4 1@1", "hidden": 32, "heads": 2, "tokenizer": "bytes", "context": 32, "batch": 4}
        where = {"data": (str(text),), "valid_fraction": 0.1, "out": str(folder / "run"), "device": "cpu"}
        train(TrainSettings(tokens=12 * 4 * 32, dtype="fp32", **shape, **where))
    return folder / "run"
