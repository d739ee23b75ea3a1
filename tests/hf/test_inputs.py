"""What a forward refuses, and what it takes: nothing is silently wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

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
    [[0, 1, 2, 3, 0, 1, 2, 3], [1, 2, 3, 4, 5, 6, 7, 8], [0, 0, 0, 0, 0, 0, 0, 0], [7, 6, 5, 4, 3, 2, 1, 0]],
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
