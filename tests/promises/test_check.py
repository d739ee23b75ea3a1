"""foveate.check: what it takes, what it gives back, what it refuses, and what it leaves as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.errors import FoveateError
from foveate.promises.asserts import assert_causal, assert_promises, assert_split_invariant
from foveate.promises.registry import PROMISES
from promises.faults import FAULTS, VOCAB, llama, override, planted, sees_the_next_token


class Averages(nn.Module):
    """A plain module, ids to logits: each token sees the mean of those before it, or of all."""

    def __init__(self, causal: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head, self.causal = nn.Embedding(11, 8), nn.Linear(8, 11), causal

    def forward(self, ids: Tensor) -> Tensor:
        x_BTD = self.embed(ids)
        counts = torch.arange(1, ids.shape[1] + 1)[:, None]
        return self.head(x_BTD.cumsum(1) / counts if self.causal else x_BTD + x_BTD.mean(1, keepdim=True))


def test_a_plain_module_is_checked() -> None:
    report = foveate.check(Averages(), promises=["deterministic", "causal", "causal-gradient", "row-alone", "cached"])
    assert [finding.name for finding in report.kept] == ["deterministic", "causal", "causal-gradient", "row-alone"]
    assert report.not_offered[0].note == "its forward takes no cache"
    found = foveate.check(Averages(causal=False), promises=["causal", "causal-gradient"]).broken
    assert [finding.name for finding in found] == ["causal", "causal-gradient"]


def test_a_model_is_left_as_it_was() -> None:
    model = llama().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    foveate.check(model, quick=True)
    assert model.training and model.model.layers[0].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_tokenizers_padding_is_used() -> None:
    read: list[Tensor] = []
    model = llama()
    model.model.embed_tokens.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    tokenizer = type("Tokenizer", (), {"pad_token_id": VOCAB - 1})()
    foveate.check(model, tokenizer, promises=["left-padding"], length=4)
    assert any((ids[:, 0] == VOCAB - 1).all() and ids.shape[1] > 4 for ids in read)


def test_quick_and_names_choose() -> None:
    assert len(foveate.check(llama(), quick=True).findings) == sum(promise.quick for promise in PROMISES)
    report = foveate.check(llama(), promises=["cached", "causal"])
    assert [finding.name for finding in report.findings] == ["causal", "cached"]


def test_records_are_json_without_infinity() -> None:
    keeps_its_head = next(fault for fault in FAULTS if fault.what == "keeps its old head")
    about, finding = foveate.check(planted(keeps_its_head), promises=["resized"]).records()
    assert about["broken"] == 1 and about["parameters"] > 0
    assert json.loads(json.dumps(finding, allow_nan=False))["worst"] is None
    assert "logits for a vocabulary" in finding["note"]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)

    def forward(self, ids: Tensor) -> Tensor:
        return self.embed(ids).mean(1)


class Nowhere(Averages):
    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * torch.inf


@pytest.mark.parametrize(
    ("model", "how", "line"),
    [
        ("a/path", {}, "a str cannot be checked; pass a torch.nn.Module"),
        (nn.Linear(2, 2), {}, "Linear has no embedding of token ids"),
        (Encoder(), {}, "Encoder gives no logits .* but shape \\[1, 8\\]; pass a causal language model"),
        (Nowhere(), {}, "Nowhere gives logits that are no numbers"),
        (Averages(), {"promises": ["casual"]}, "there is no promise 'casual'; choose of deterministic, causal"),
        (Averages(), {"length": 1}, "length is 1; a text to check with has at least 2 tokens"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bad_input_is_one_line(model: Any, how: dict, line: str) -> None:
    with pytest.raises(FoveateError, match=line) as error:
        foveate.check(model, **how)
    assert "\n" not in str(error.value)


def test_out_of_memory_is_not_taken_for_a_broken_promise() -> None:
    class Large(Averages):
        def forward(self, ids: Tensor) -> Tensor:
            if ids.shape[1] > 4:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
            return super().forward(ids)

    with pytest.raises(RuntimeError, match="allocate memory"):
        foveate.check(Large(), promises=["causal"])


def test_what_a_model_declines_is_not_offered() -> None:
    class Declines(Averages):
        def forward(self, ids: Tensor) -> Tensor:
            if len(ids) > 1:
                raise NotImplementedError("one row at a time")
            return super().forward(ids)

    (finding,) = foveate.check(Declines(), promises=["row-alone"]).findings
    assert (finding.state, finding.note) == ("not offered", "one row at a time")


def test_what_raises_is_broken_and_names_the_layer() -> None:
    model = llama()

    def forward(self: nn.Module, original: Any, hidden_states: Tensor, **kwargs: Any) -> Any:
        if len(hidden_states) > 1:
            raise IndexError("no such row")
        return original(hidden_states, **kwargs)

    override(model.model.layers[1].self_attn, forward)
    (finding,) = foveate.check(model, promises=["row-alone"]).broken
    assert finding.note == "IndexError: no such row"
    assert finding.layer == "model.layers.1.self_attn"


def test_asserts() -> None:
    assert_causal(llama())
    assert_split_invariant(llama(), length=9)
    broken = llama()
    sees_the_next_token(broken)
    with pytest.raises(AssertionError, match=r"causal: off by .* from model.layers.1.self_attn on: 2 tokens"):
        assert_causal(broken)
    with pytest.raises(AssertionError, match="cached: not offered: its forward takes no cache"):
        assert_split_invariant(Averages())
    with pytest.raises(FoveateError, match="no promise 'x'"):
        assert_promises(llama(), "x")


def test_the_vocabulary_is_that_of_the_model() -> None:
    report = foveate.check(llama(), promises=["resized"])
    assert report.kept and str(VOCAB - 1) not in report.kept[0].note
