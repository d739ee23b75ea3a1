"""Attention against a softmax written out over an explicit mask. The contract matrix does the rest."""

import pytest
import torch
from torch import Tensor

from foveate import spec
from foveate.backends import attend, attend_anywhere
from foveate.model.attention import additive, make_heads
from foveate.model.clock import Units
from foveate.model.rotary import Rotary


def naive(q_RSHd: Tensor, k_RLKd: Tensor, v_RLKd: Tensor, mask_SL: Tensor) -> Tensor:
    H, d = q_RSHd.shape[2:]
    k_RLHd, v_RLHd = (part.repeat_interleave(H // part.shape[2], 2) for part in (k_RLKd, v_RLKd))
    logits_RHSL = torch.einsum("rshd,rlhd->rhsl", q_RSHd, k_RLHd) / d**0.5
    weights_RHSL = logits_RHSL.masked_fill(~mask_SL, -torch.inf).softmax(-1)
    return torch.einsum("rhsl,rlhd->rshd", weights_RHSL, v_RLHd)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("new", [1, 5])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("anywhere", [True, False])
def test_attend(heads: int, kv_heads: int, new: int, masked: bool, anywhere: bool) -> None:
    torch.manual_seed(0)
    q = torch.randn(2, new, heads, 6, dtype=torch.float64)
    k, v = torch.randn(2, 2, 7, kv_heads, 6, dtype=torch.float64)
    mask = torch.rand(new, 7) < 0.6 if masked else torch.ones(new, 7, dtype=torch.bool)
    mask[:, 0] = True
    added = additive(mask, q.dtype)[None, None] if masked else None
    found = (attend_anywhere if anywhere else attend)(q, k.transpose(1, 2), v.transpose(1, 2), mask=added, causal=False)
    torch.testing.assert_close(found, naive(q, k, v, mask))


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("anywhere", [True, False])
def test_a_causal_query_sees_what_is_before_it_and_itself(kv_heads: int, anywhere: bool) -> None:
    torch.manual_seed(0)
    q = torch.randn(2, 7, 4, 6, dtype=torch.float64)
    k, v = torch.randn(2, 2, 7, kv_heads, 6, dtype=torch.float64)
    found = (attend_anywhere if anywhere else attend)(q, k.transpose(1, 2), v.transpose(1, 2), mask=None, causal=True)
    torch.testing.assert_close(found, naive(q, k, v, torch.ones(7, 7, dtype=torch.bool).tril()))


class SaysCuda(Tensor):
    """A tensor of this machine that takes the way of a GPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> torch.device:
        return torch.device("cuda")


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_grouped_queries_with_a_mask_on_a_gpu(kv_heads: int) -> None:
    torch.manual_seed(0)
    q = torch.randn(2, 5, 4, 6, dtype=torch.float64)
    k, v = torch.randn(2, 2, 7, kv_heads, 6, dtype=torch.float64)
    mask = torch.rand(5, 7) < 0.6
    mask[:, 0] = True
    added = additive(mask, q.dtype)[None, None]
    found = attend_anywhere(q.as_subclass(SaysCuda), k.transpose(1, 2), v.transpose(1, 2), added, False)
    torch.testing.assert_close(found, naive(q, k, v, mask))


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2)])
@pytest.mark.parametrize("masks", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("pieces", [False, True])
def test_one_query_in_bfloat16(heads: int, kv_heads: int, masks: torch.dtype, pieces: bool, monkeypatch) -> None:
    """Also with keys that are too large to be copied at once."""
    if pieces:
        monkeypatch.setattr("foveate.backends.cpu.attention.COPIED_AT_ONCE", 2 * 9 * 16 * 3)
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 1, heads, 16), torch.randn(2, kv_heads, 9, 16), torch.randn(2, kv_heads, 9, 16)
    mask = torch.tensor([0.0] * 5 + [-torch.inf] * 4)[None, None, None]
    found = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask=mask.to(masks))
    torch.testing.assert_close(found.float(), attend_anywhere(q, k, v, mask, False), atol=0.03, rtol=0.03)


@pytest.mark.parametrize("kind", ["window1", "window3", "window8", "window20", "window64", "sink1", "sink6", "sink30"])
@pytest.mark.parametrize("units", [1, 7, 20, 41])
def test_blocks_are_a_band_and_what_is_pinned(kind: str, units: int) -> None:
    torch.manual_seed(0)
    level, attention = (
        spec.Level(stride=1, width=8, heads=2, kv_heads=1, feed_forward=8),
        spec.parse_attention(kind),
    )
    heads = make_heads(level, attention)
    qkv = torch.randn(2, units, 4, 4, dtype=torch.float64)
    metadata = heads.prepare(Units(0, units), None, None, Rotary(4, 100.0), qkv, qkv.dtype)
    found = heads(qkv, metadata, 0)
    q, k, v = heads.split(qkv, metadata)
    seen = torch.zeros(units, units, dtype=torch.bool)
    for t in range(units):
        for first, _ in attention.seen(t):
            seen[t, first] = True
    torch.testing.assert_close(found, naive(q, k, v, seen))


def test_window_work_is_linear_in_units(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def counting(q_RSHd: Tensor, k_RKLd: Tensor, v_RKLd: Tensor, **options: object) -> Tensor:
        compared.append(q_RSHd.shape[0] * q_RSHd.shape[1] * k_RKLd.shape[2])
        return attend(q_RSHd, k_RKLd, v_RKLd, **options)

    monkeypatch.setattr("foveate.model.attention.attend", counting)
    level = spec.Level(stride=1, width=8, heads=2, kv_heads=2, feed_forward=8)
    heads = make_heads(level, spec.Window(window=16))
    qkv = torch.randn(1, 1000, 6, 4)
    heads(qkv, heads.prepare(Units(0, 1000), None, None, Rotary(4, 100.0), qkv, qkv.dtype), 0)
    assert sum(compared) <= 1008 * 2 * 16
