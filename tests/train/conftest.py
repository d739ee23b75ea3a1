"""A tiny corpus and tiny models, with the token cache in a folder of the test session."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from foveate.data.tokenizer import make_tokenizer
from foveate.train.run import RunResult, train
from foveate.train.settings import TrainSettings

SENTENCE = "the cat sat on a mat and saw how far away the naïve old moon — so it said — was this night"


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text(" ".join(draw.choice(SENTENCE.split()) for _ in range(2000)), encoding="utf-8")
    return path


@pytest.fixture
def settings(tmp_path, text_file) -> TrainSettings:
    """Twelve steps of a tiny model: a log line every second step, checkpoints and validations at 5, 10 and 12."""
    return TrainSettings(**tiny(tmp_path, text_file))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, text_file, _own_cache) -> RunResult:
    """A run with those settings that nothing happened to."""
    return train(TrainSettings(**tiny(tmp_path_factory.mktemp("undisturbed"), text_file)))


def tiny(tmp_path, text_file) -> dict[str, Any]:
    return {
        "walk": "1@1 1@4 1@1",
        "hidden": 32,
        "heads": 2,
        "data": (str(text_file),),
        "valid_fraction": 0.1,
        "tokenizer": "bytes",
        "context": 32,
        "batch": 4,
        "tokens": 12 * 4 * 32,
        "dtype": "fp32",
        "device": "cpu",
        "out": str(tmp_path / "run"),
        "log_every": 2,
        "save_every": 5,
        "eval_every": 5,
        "eval_tokens": 256,
    }


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer("bytes", list)


@pytest.fixture(scope="session")
def llama() -> LlamaForCausalLM:
    set_seed(1)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=256,
        eos_token_id=256,
        pad_token_id=256,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
