"""Each planted fault is found, by the promise it breaks and in the layer it is in; a model without one keeps all."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import foveate
from foveate.promises.registry import BY_NAME
from promises.faults import FAULTS, Fault, gpt2, llama, planted

SLOW = {"compiled", "half-precision"}
FAST = [name for name in BY_NAME if name not in SLOW]


def slow_or_not(fault: Fault) -> Any:
    return pytest.param(fault, id=fault.what, marks=pytest.mark.slow if fault.promise in SLOW else ())


@pytest.mark.parametrize("fault", [slow_or_not(fault) for fault in FAULTS])
def test_fault_is_found_and_named(fault: Fault) -> None:
    report = foveate.check(planted(fault), promises=[fault.promise])
    (found,) = report.broken
    assert (found.name, found.layer) == (fault.promise, fault.layer)
    assert found.worst > 10 * found.allowed or fault.promise == "half-precision"


def test_the_input_is_the_shortest() -> None:
    found = foveate.check(planted(FAULTS[0]), promises=["causal"]).broken[0]
    assert (found.rows, found.length) == (1, 2)
    forgetful = next(fault for fault in FAULTS if fault.what == "forgets the first key")
    found = foveate.check(planted(forgetful), promises=["cached"]).broken[0]
    assert (found.rows, found.length) == (1, 3)  # the key of one token alone is never forgotten


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_sound_model_keeps_all(make: Any, dtype: torch.dtype) -> None:
    report = foveate.check(make().to(dtype), promises=FAST)
    assert report.broken == []
    assert len(report.kept) == len(FAST)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral", "mixtral", "gpt2"])
def test_no_false_alarm(name: str, dtype: torch.dtype) -> None:
    from foveate.promises.architectures import tiny_model

    report = foveate.check(tiny_model(name, seed=1, dtype=dtype), promises=[*FAST, "half-precision"], seed=1)
    assert report.broken == [] and report.not_offered == [], str(report)


@pytest.mark.parametrize("what", ["sees the next token", "forgets the mask", "begins positions anew"])
def test_half_precision_is_not_blind(what: str) -> None:
    fault = next(fault for fault in FAULTS if fault.what == what)
    found = foveate.check(planted(fault).bfloat16(), promises=[fault.promise]).broken[0]
    assert found.layer == fault.layer


@pytest.mark.slow
@pytest.mark.parametrize("walk", ["2@1", "1@1 2@4 1@1", "0@1 1@4 1@1:window3", "1@1:fovea4,groups=4,scales=2/4"])
def test_our_own_walks_keep_all(walk: str) -> None:
    config = foveate.FoveateConfig(walk=walk, vocab_size=37, hidden_size=16, num_attention_heads=2)
    report = foveate.check(foveate.FoveateForCausalLM(config), promises=FAST)
    assert report.broken == [] and report.not_offered == [], str(report)
