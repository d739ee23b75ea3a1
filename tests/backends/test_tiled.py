"""Attention in tiles of queries against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as torch_attention

from foveate import FoveateConfig, FoveateForCausalLM
from foveate.backends.cpu import attention
from foveate.backends.cpu.tiled import TILE, attend_in_tiles


def tensors(heads: int, kv_heads: int, queries: int, keys: int, dtype: torch.dtype) -> list[torch.Tensor]:
    sizes = ((heads, queries), (kv_heads, keys), (kv_heads, keys))
    return [torch.randn(2, h, length, 16, dtype=dtype).requires_grad_() for h, length in sizes]


MASKS = {
    "causal": lambda queries, keys: None,
    "none": lambda queries, keys: None,
    "shared": lambda queries, keys: torch.rand(queries, keys) < 0.5,
    "per row": lambda queries, keys: torch.rand(2, 1, queries, keys) < 0.5,
    "one for all queries": lambda queries, keys: torch.rand(2, 1, 1, keys) < 0.5,
    "added": lambda queries, keys: torch.randn(2, 4, queries, keys, dtype=torch.float64),
}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("queries", [1, 7, TILE, 2 * TILE + 9])
def test_outputs_and_gradients_are_those_of_torchs_attention(kind: str, kv_heads: int, queries: int) -> None:
    torch.manual_seed(queries)
    causal = kind == "causal"
    keys = queries if causal else queries + 30
    q, k, v = tensors(4, kv_heads, queries, keys, torch.float64)
    mask = MASKS[kind](queries, keys)
    expected = torch_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True)
    actual = attend_in_tiles(q, k, v, mask, causal)
    assert torch.allclose(actual, expected, rtol=0, atol=1e-12)
    along = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(actual, (q, k, v), along), torch.autograd.grad(expected, (q, k, v), along), strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


def test_in_bfloat16_gradients_are_about_as_exact_as_torchs() -> None:
    torch.manual_seed(0)
    exact = tensors(4, 2, 600, 600, torch.float64)
    out = torch_attention(*exact, is_causal=True, enable_gqa=True)
    along = torch.randn_like(out)
    truth = torch.autograd.grad(out, exact, along)

    def error(function) -> list[float]:
        rounded = [part.detach().bfloat16().requires_grad_() for part in exact]
        grads = torch.autograd.grad(function(*rounded), rounded, along.bfloat16())
        return [((a.double() - b).norm() / b.norm()).item() for a, b in zip(grads, truth, strict=True)]

    theirs = error(lambda q, k, v: torch_attention(q, k, v, is_causal=True, enable_gqa=True))
    ours = error(lambda q, k, v: attend_in_tiles(q, k, v, None, True))
    assert all(a < 2 * b for a, b in zip(ours, theirs, strict=True)), (ours, theirs)


def test_what_many_tiles_give_a_key_is_summed_in_fp32(monkeypatch) -> None:
    """Each of 1,024 queries gives every value the same 1/16: in bfloat16 the sum would stop growing half-way."""
    monkeypatch.setattr("foveate.backends.cpu.tiled.TILE", 2)
    q = torch.zeros(1, 1, 1024, 8, dtype=torch.bfloat16)
    k, v = torch.randn(2, 1, 1, 16, 8).bfloat16()
    v.requires_grad_()
    attend_in_tiles(q, k, v, None, False).backward(torch.ones_like(q))
    assert v.grad.unique().tolist() == [1024 / 16]


@pytest.mark.parametrize("walk", ["2@1", "1@1:window8 2@4 1@1", "2@1:fovea4,groups=4,scales=4/16"])
def test_a_training_step_in_bfloat16_uses_it_and_agrees_with_fp32(walk: str, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(attention, "attend_in_tiles", lambda *args: calls.append(0) or attend_in_tiles(*args))
    torch.manual_seed(0)
    model = FoveateForCausalLM(FoveateConfig(walk=walk, vocab_size=64, hidden_size=32, num_heads=2))
    ids = torch.randint(0, 64, (2, 200))
    model(input_ids=ids, labels=ids).loss.backward()
    exact = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert not calls
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    rounded = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert calls
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=0) > 0.99


def test_a_learned_mask_is_left_to_torch(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(attention, "attend_in_tiles", lambda *args: calls.append(0) or attend_in_tiles(*args))
    q = torch.randn(1, 3, 2, 8, dtype=torch.bfloat16, requires_grad=True)
    k = v = torch.randn(1, 2, 3, 8, dtype=torch.bfloat16)
    mask = torch.zeros(1, 1, 3, 3, dtype=torch.bfloat16)
    attention.attend(q, k, v, mask, False)
    assert calls == [0]
    attention.attend(q, k, v, mask.requires_grad_(), False)
    assert calls == [0]


@pytest.mark.parametrize("walk", ["2@1", "1@1:window8 2@4 1@1", "2@1:fovea4,groups=4,scales=4/16"])
def test_numbers_do_not_depend_on_whether_gradients_are_wanted(walk: str) -> None:
    torch.manual_seed(0)
    model = FoveateForCausalLM(FoveateConfig(walk=walk, vocab_size=64, hidden_size=32, num_heads=2)).bfloat16().eval()
    ids = torch.randint(0, 64, (2, 200))
    with torch.no_grad():
        without = model(input_ids=ids, use_cache=False).logits
    assert torch.equal(model(input_ids=ids, use_cache=False).logits, without)
