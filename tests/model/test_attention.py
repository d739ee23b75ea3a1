"""Attention against a softmax written out over an explicit mask. The contract matrix does the rest."""

import pytest
import torch
from torch import Tensor

from foveate import spec
from foveate.model.attention import WindowAttention, attend
from foveate.model.clock import Span
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
def test_attend(heads: int, kv_heads: int, new: int, masked: bool) -> None:
    torch.manual_seed(0)
    q = torch.randn(2, new, heads, 6, dtype=torch.float64)
    k, v = torch.randn(2, 2, 7, kv_heads, 6, dtype=torch.float64)
    mask = torch.rand(new, 7) < 0.6 if masked else torch.ones(new, 7, dtype=torch.bool)
    mask[:, 0] = True
    found = attend(q, k.transpose(1, 2), v.transpose(1, 2), mask=mask if masked else None)
    torch.testing.assert_close(found, naive(q, k, v, mask))


@pytest.mark.parametrize("window", [1, 3, 8, 20, 64])
@pytest.mark.parametrize("units", [1, 7, 20, 41])
def test_window_in_blocks_is_a_band(window: int, units: int) -> None:
    torch.manual_seed(0)
    level = spec.Level(stride=1, width=8, heads=2, kv_heads=1, feed_forward=8)
    attention = WindowAttention(level, spec.Attention(kind="window", window=window))
    qkv = torch.randn(2, units, 4, 4, dtype=torch.float64)
    view = attention.prepare(Span(0, units), None, Rotary(4, 100.0), qkv)
    found = attention(qkv, view, 0)
    q, k, v = attention.split(qkv, view)
    distance = torch.arange(units)[:, None] - torch.arange(units)
    torch.testing.assert_close(found, naive(q, k, v, (distance >= 0) & (distance < window)))


def test_window_work_is_linear_in_units(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def counting(q_RSHd: Tensor, k_RKLd: Tensor, v_RKLd: Tensor, **options: object) -> Tensor:
        compared.append(q_RSHd.shape[0] * q_RSHd.shape[1] * k_RKLd.shape[2])
        return attend(q_RSHd, k_RKLd, v_RKLd, **options)

    monkeypatch.setattr("foveate.model.attention.attend", counting)
    level = spec.Level(stride=1, width=8, heads=2, kv_heads=2, feed_forward=8)
    attention = WindowAttention(level, spec.Attention(kind="window", window=16))
    qkv = torch.randn(1, 1000, 6, 4)
    attention(qkv, attention.prepare(Span(0, 1000), None, Rotary(4, 100.0), qkv), 0)
    assert sum(compared) <= 1008 * 2 * 16
