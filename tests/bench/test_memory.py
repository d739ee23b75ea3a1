"""Memory of a training step, counted tensor by tensor."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from foveate import FoveateConfig, FoveateForCausalLM
from foveate.bench.memory import TrainingMemory, _LiveBytes, measure_training_memory
from foveate.errors import FoveateError


@pytest.fixture(scope="module")
def model() -> FoveateForCausalLM:
    torch.manual_seed(0)
    config = FoveateConfig(walk="1@1 2@4 1@1", vocab_size=64, hidden_size=32, num_attention_heads=2)
    return FoveateForCausalLM(config).eval()


def measured(model, **options) -> TrainingMemory:
    return measure_training_memory(model, name="it", **({"batch": 2, "context": 64} | options))


def test_live_bytes_follow_storages_from_their_making_to_their_end() -> None:
    given = torch.zeros(1000)
    with _LiveBytes([given]) as live:
        assert live.bytes == 4000
        double = given + given
        view = double[:500]
        del double
        assert live.bytes == 8000, "a view keeps its storage"
        del view
        assert live.bytes == 4000
        given.add_(1)
        assert live.peak == 8000, "in place takes nothing"


@pytest.mark.parametrize("bf16", [False, True])
def test_what_is_kept_is_what_was_predicted(model, bf16) -> None:
    small, large = (measured(model, batch=batch, bf16=bf16) for batch in (2, 4))
    assert small.dtype == ("bfloat16" if bf16 else "float32")
    # rotary tables, which do not grow with the batch, are left out of the prediction
    predicted = large.predicted_kept_bytes - small.predicted_kept_bytes
    assert large.kept_bytes - small.kept_bytes == pytest.approx(predicted, rel=0.02)
    assert 0 <= small.kept_bytes - small.predicted_kept_bytes < 2**18


def test_a_step_holds_weights_moments_and_what_is_kept_at_once(model) -> None:
    memory = measured(model)
    weights = sum(p.nbytes for p in model.parameters())
    assert memory.state_bytes == pytest.approx(4 * weights, rel=0.01)
    assert memory.peak_bytes > 3 * weights + memory.kept_bytes
    assert measured(model) == memory, "the same in every run"


def test_the_model_stays_as_it_is(model) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measured(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_any_causal_language_model_will_do() -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    memory = measured(LlamaForCausalLM(config))
    assert memory.predicted_kept_bytes is None
    assert memory.kept_bytes > 2 * 64 * 64 * 4, "the log-probabilities at least"


@pytest.mark.parametrize(("wrong", "message"), [({"batch": 0}, "batch is 0"), ({"context": 1}, "context is 1")])
def test_a_step_of_nothing_is_refused(model, wrong, message) -> None:
    with pytest.raises(FoveateError, match=message):
        measured(model, **wrong)
