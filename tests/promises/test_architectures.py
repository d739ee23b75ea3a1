"""Tiny models of transformers' architectures: what they are made of, and what is refused."""

from __future__ import annotations

import pytest
import torch

from foveate.errors import FoveateError
from foveate.promises.architectures import LARGEST, tiny_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_tiny_model_is_made_in_its_dtype(dtype: torch.dtype) -> None:
    model, again, other = (tiny_model("qwen3", seed=seed, dtype=dtype) for seed in (1, 1, 2))
    weights, same, different = (dict(one.named_parameters()) for one in (model, again, other))
    assert {weight.dtype for weight in weights.values()} == {dtype}
    assert sum(weight.numel() for weight in weights.values()) < LARGEST
    assert all(torch.equal(weight, same[name]) for name, weight in weights.items())
    assert not any(torch.equal(weight, different[name]) for name, weight in weights.items())
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32  # as from_pretrained leaves it


def test_an_unknown_architecture_is_one_line() -> None:
    with pytest.raises(FoveateError, match=r"the architecture 'qwen33'; did you mean qwen3\?"):
        tiny_model("qwen33")
