"""What a forward refuses, and what it takes: nothing is silently wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from foveate import FoveateForCausalLM
from foveate.errors import FoveateError
from hf.models import make_ids, make_model, pad_left


@pytest.fixture(scope="module")
def model() -> FoveateForCausalLM:
    return make_model("hourglass")


def positions_of(mask: Tensor) -> Tensor:
    return (mask.cumsum(1) - 1).masked_fill(mask == 0, 0)


def test_positions_that_count_are_taken(model: FoveateForCausalLM) -> None:
    ids, mask = pad_left([make_ids(n, seed=n) for n in (9, 4)])
    with torch.no_grad():
        expected = model(ids, attention_mask=mask).logits
        for positions in (positions_of(mask), torch.arange(9)[None]):
            assert torch.equal(model(ids, attention_mask=mask, position_ids=positions).logits, expected)
        cache = model.make_cache(2)
        model(ids[:, :6], attention_mask=mask[:, :6], past_key_values=cache)
        rest = model(ids[:, 6:], attention_mask=mask, past_key_values=cache, position_ids=positions_of(mask)[:, 6:])
    torch.testing.assert_close(rest.logits, expected[:, 6:], atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    "positions",
    [[0, 1, 2, 3, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8], [0, 2, 4, 6, 8, 10, 12, 14], [7, 6, 5, 4, 3, 2, 1, 0]],
)
def test_positions_that_contradict_are_refused(model: FoveateForCausalLM, positions: list[int]) -> None:
    with pytest.raises(FoveateError, match="position_ids do not count up"):
        model(make_ids(1, 8), position_ids=torch.tensor([positions]))
    with pytest.raises(FoveateError, match="position_ids has shape"):
        model(make_ids(1, 8), position_ids=torch.tensor([positions[:5]]))


def test_positions_after_a_cache_that_contradict_are_refused(model: FoveateForCausalLM) -> None:
    cache = model.read(make_ids(1, 8), model.make_cache())
    with pytest.raises(FoveateError, match="position_ids"):
        model(make_ids(1, 1), past_key_values=cache, position_ids=torch.tensor([[3]]))
    assert cache.seen == 8


def test_masks_that_say_who_sees_whom_are_refused(model: FoveateForCausalLM) -> None:
    for shape in ((1, 1, 8, 8), (1, 8, 8), (8,)):
        with pytest.raises(FoveateError, match="attention_mask has shape"):
            model(make_ids(1, 8), attention_mask=torch.ones(shape))
    with pytest.raises(FoveateError, match=r"\(1, 7\) for 1 rows of 8 columns"):
        model(make_ids(1, 8), attention_mask=torch.ones(1, 7))
    with pytest.raises(FoveateError, match="attention_mask has shape dict"):
        model(make_ids(1, 8), attention_mask={"full_attention": None})


def test_foreign_caches(model: FoveateForCausalLM) -> None:
    foreign = DynamicCache()
    out = model(make_ids(1, 8), past_key_values=foreign)  # empty: ours takes its place
    assert out.past_key_values.seen == 8
    foreign.update(torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 3, 8), 0)
    for stranger in (foreign, ((torch.zeros(1), torch.zeros(1)),)):
        with pytest.raises(FoveateError, match="with content"):
            model(make_ids(1, 8), past_key_values=stranger)
        with pytest.raises(FoveateError, match="with content"):
            model.generate(make_ids(1, 8), past_key_values=stranger, max_new_tokens=2)
    with pytest.raises(FoveateError, match="holds 3 rows, the input has 1"):
        model(make_ids(1, 8), past_key_values=model.make_cache(3))


def test_other_refusals(model: FoveateForCausalLM) -> None:
    with pytest.raises(FoveateError, match="either input_ids or inputs_embeds"):
        model()
    with pytest.raises(FoveateError, match="output_attentions"):
        model(make_ids(1, 8), output_attentions=True)
    with pytest.raises(FoveateError, match="outside the vocabulary of 37"):
        model(torch.tensor([[1, 37]]))
    with pytest.raises(FoveateError, match="shape"):
        model(make_ids(8))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"atention_mask": torch.ones(1, 8)}, "atention_mask is no argument .* did you mean attention_mask?"),
        ({"cache_position": torch.arange(8)}, "cache_position is no argument"),
        ({"past_key_value": 1}, "did you mean past_key_values?"),
        ({"token_type_ids": torch.ones(1, 8, dtype=torch.long)}, "token_type_ids"),
        ({"is_causal": False}, "is_causal=False"),
        ({"attention_mask": torch.tensor([[0.0, 0, 0, 0, 0, 0, 0, -1e9]])}, "attention_mask is of floats"),
        ({"attention_mask": torch.zeros(1, 8)}, "attention_mask is of floats"),
        ({"attention_mask": torch.tensor([[-1, 1, 1, 1, 1, 1, 1, 1]])}, "attention_mask has the value -1"),
        ({"max_seqlen_q": 3}, "max_seqlen_q is no argument"),
    ],
)
def test_what_is_unknown_or_means_something_else_is_refused(
    model: FoveateForCausalLM, inputs: dict[str, Any], message: str
) -> None:
    for called in (model, model.model):
        with pytest.raises(FoveateError, match=message) as caught:
            called(make_ids(1, 8), **inputs)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "inputs",
    [
        {"head_mask": None, "output_attentions": False, "output_router_logits": False},
        {"token_type_ids": torch.zeros(1, 8, dtype=torch.long)},
        {"is_causal": True},
        {"attention_mask": torch.ones(1, 8)},
        {"attention_mask": torch.ones(1, 8, dtype=torch.bool)},
    ],
)
def test_what_says_nothing_changes_nothing(model: FoveateForCausalLM, inputs: dict[str, Any]) -> None:
    with torch.no_grad():
        assert torch.equal(model(make_ids(1, 8), **inputs).logits, model(make_ids(1, 8)).logits)


def test_a_misspelt_argument_of_generate_is_refused(model: FoveateForCausalLM) -> None:
    with pytest.raises(ValueError, match="atention_mask"):
        model.generate(make_ids(1, 8), atention_mask=torch.ones(1, 8), max_new_tokens=2)


@pytest.mark.parametrize("attention", ["eager", "flash_attention_2", "flex_attention"])
def test_another_kind_of_attention_is_refused(model: FoveateForCausalLM, attention: str, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises((FoveateError, ValueError), match=r"attn_implementation|does not support|attention") as caught:
        AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=attention)
    if attention == "eager":
        assert isinstance(caught.value, FoveateError)
    with pytest.raises(FoveateError, match=f"attn_implementation='{attention}'"):
        model.set_attn_implementation(attention)
    assert AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa").config is not None


def test_the_loss_of_some_logits_is_refused(model: FoveateForCausalLM) -> None:
    with pytest.raises(FoveateError, match="logits_to_keep"):
        model(make_ids(1, 8), labels=make_ids(1, 8), logits_to_keep=3)
