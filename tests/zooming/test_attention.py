"""Zoom attention against the slow reference, against full attention, and against itself in other pieces."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from foveate.errors import FoveateError
from foveate.zooming import ZoomPlan, ZoomState, zoom_attention
from foveate.zooming.reference import opened_keys, reference

SMALL = {"near": 5, "sinks": 2, "block": 16, "groups": (8, 4, 2)}
PLANS = {
    "tree": ZoomPlan(**SMALL, keep=(2, 3, 3), opened=3, thumbnails=0),
    "tree, thumbnails": ZoomPlan(**SMALL, keep=(2, 3, 3), opened=3, thumbnails=16),
    "all closed are thumbnails": ZoomPlan(**SMALL, keep=(None, None, None), opened=2, thumbnails=2),
    "thumbnails alone": ZoomPlan(**SMALL, keep=(None, 3, None), opened=0, thumbnails=8),
    "a budget per head": ZoomPlan(**SMALL, keep=(None, 4, 4), opened=(3, 0), thumbnails=4),
    "spread counts": ZoomPlan(**SMALL, keep=(2, 3, 3), opened=3, thumbnails=4, spread=1.5),
    "one size of group": ZoomPlan(near=4, sinks=0, block=8, groups=(4,), keep=(None,), opened=2, thumbnails=4),
}
EXACT = ZoomPlan(**SMALL, keep=(None, None, None), opened=1000, thumbnails=16)
SCALE = 0.3


def texts(tokens: int, rows: int = 2, heads: int = 4, kv_heads: int = 2, dtype=torch.float64, seed: int = 0):
    torch.manual_seed(seed)
    shapes = [(rows, n, tokens, 6) for n in (heads, kv_heads, kv_heads)]
    return [2 * torch.randn(shape, dtype=dtype) for shape in shapes]


def full(q, k, v):
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True, scale=SCALE)


@pytest.mark.parametrize("way", ["masks", "gathers"])
@pytest.mark.parametrize("name", PLANS)
def test_equals_the_reference_forward_and_backward(name, way, monkeypatch) -> None:
    monkeypatch.setattr("foveate.zooming.whole.MASKED_UP_TO", 100 if way == "masks" else 0)
    tensors = [x.requires_grad_() for x in texts(67, rows=1)]
    torch.manual_seed(1)
    weight = torch.randn(1, 4, 67, 6, dtype=torch.float64)
    outs, grads = [], []
    for out in (reference(*tensors, PLANS[name], SCALE), zoom_attention(*tensors, PLANS[name], scale=SCALE)):
        outs.append(out)
        grads.append(torch.autograd.grad((out * weight).sum(), tensors))
    torch.testing.assert_close(outs[1], outs[0], rtol=0, atol=1e-12)
    for mine, theirs in zip(grads[1], grads[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_is_full_attention_where_everything_is_opened(dtype) -> None:
    tensors = texts(150, dtype=dtype)
    close = {"rtol": 0, "atol": 1e-12 if dtype is torch.float64 else 1e-5}
    torch.testing.assert_close(zoom_attention(*tensors, EXACT, scale=SCALE), full(*tensors), **close)
    torch.testing.assert_close(ZoomState(EXACT).read(*tensors, scale=SCALE), full(*tensors), **close)
    few = ZoomPlan(**SMALL, keep=(2, 3, 3), opened=3, thumbnails=0)
    assert (zoom_attention(*tensors, few, scale=SCALE) - full(*tensors)).abs().max() > 0.1


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("calls", [[67], [1] * 67, [3, 30, 1, 1, 20, 12]], ids=["once", "one by one", "pieces"])
def test_a_state_in_any_pieces_equals_the_whole(name, calls) -> None:
    tensors = texts(67)
    state = ZoomState(PLANS[name])
    outs = [state.read(*part, scale=SCALE) for part in zip(*(x.split(calls, 2) for x in tensors), strict=True)]
    expected = zoom_attention(*tensors, PLANS[name], scale=SCALE)
    torch.testing.assert_close(torch.cat(outs, 2), expected, rtol=0, atol=1e-12)


def test_the_last_queries_of_a_text_alone() -> None:
    q, k, v = texts(67)
    plan = PLANS["tree, thumbnails"]
    whole = zoom_attention(q, k, v, plan, scale=SCALE)
    torch.testing.assert_close(zoom_attention(q[:, :, 40:], k, v, plan, scale=SCALE), whole[:, :, 40:])


def test_few_queries_at_once(monkeypatch) -> None:
    tensors, plan = texts(67), PLANS["tree, thumbnails"]
    whole = zoom_attention(*tensors, plan, scale=SCALE)
    monkeypatch.setattr("foveate.zooming.state.BYTES_AT_ONCE", 1)
    torch.testing.assert_close(zoom_attention(*tensors, plan, scale=SCALE), whole)
    monkeypatch.setattr("foveate.zooming.whole.MASKED_UP_TO", 0)
    torch.testing.assert_close(zoom_attention(*tensors, plan, scale=SCALE), whole)
    torch.testing.assert_close(ZoomState(plan).read(*tensors, scale=SCALE), whole)


@pytest.mark.parametrize("name", PLANS)
def test_rows_keep_their_own_clocks(name) -> None:
    tensors, plan = texts(60, rows=3), PLANS[name]
    whole = zoom_attention(*tensors, plan, scale=SCALE)
    state, done, got = ZoomState(plan), [0, 0, 0], [[], [], []]
    for counts in ([20, 3, 0], [1, 1, 1], [30, 45, 2], [1, 0, 1], [8, 11, 56]):
        width = max(counts)
        parts = []
        for x in tensors:
            part = torch.full((3, x.shape[1], width, 6), 1e3, dtype=x.dtype)  # what is nobody's may be anything
            for row, count in enumerate(counts):
                part[row, :, :count] = x[row, :, done[row] : done[row] + count]
            parts.append(part)
        out = state.read(*parts, counts=counts, scale=SCALE)
        for row, count in enumerate(counts):
            got[row].append(out[row, :, :count])
            done[row] += count
    assert state.lengths == done == [60, 60, 60]
    torch.testing.assert_close(torch.stack([torch.cat(row, 1) for row in got]), whole, rtol=0, atol=1e-12)


def test_taking_text_back_leaves_no_trace() -> None:
    tensors, other, plan = texts(90), texts(90, seed=5), PLANS["tree, thumbnails"]
    whole = zoom_attention(*tensors, plan, scale=SCALE)
    state = ZoomState(plan)
    state.read(*(x[:, :, :40] for x in tensors), scale=SCALE)
    for back in (1, 7, 39):
        state.read(*(x[:, :, :back] for x in other), scale=SCALE)
        state.remove_last(back)
    state.remove_last(30)
    rest = state.read(*(x[:, :, 10:] for x in tensors), scale=SCALE)
    torch.testing.assert_close(rest, whole[:, :, 10:], rtol=0, atol=1e-12)
    with pytest.raises(FoveateError, match="cannot remove 91 tokens of rows of"):
        state.remove_last(91)


def test_rows_can_be_taken_and_a_state_saved() -> None:
    tensors, plan = texts(67, rows=3), PLANS["tree, thumbnails"]
    whole = zoom_attention(*tensors, plan, scale=SCALE)
    state = ZoomState(plan)
    state.read(*(x[:, :, :50] for x in tensors), scale=SCALE)
    state.take_rows(torch.tensor([2, 0, 2, 1]))
    again = ZoomState(plan)
    again.restore(*state.saved())
    assert again.nbytes <= state.nbytes
    out = again.read(*(x[[2, 0, 2, 1], :, 50:] for x in tensors), scale=SCALE)
    torch.testing.assert_close(out, whole[[2, 0, 2, 1], :, 50:], rtol=0, atol=1e-12)
    with pytest.raises(FoveateError, match="2 rows for a state of 4"):
        again.read(*texts(1), scale=SCALE)


def test_no_later_token_is_seen() -> None:
    tensors = [x.requires_grad_() for x in texts(67, rows=1)]
    out = zoom_attention(*tensors, PLANS["tree, thumbnails"], scale=SCALE)
    for t in (0, 3, 30, 55):
        for grad in torch.autograd.grad(out[:, :, t].sum(), tensors, retain_graph=True):
            assert not grad[:, :, t + 1 :].any()


def test_sorted_blocks_never_change() -> None:
    tensors, plan = texts(200), PLANS["tree"]
    state = ZoomState(plan)
    state.read(*(x[:, :, :100] for x in tensors), scale=SCALE)
    blocks = plan.blocks(99) * plan.block
    before = state.album.slots[0].piece(0, blocks).clone()
    state.read(*(x[:, :, 100:] for x in tensors), scale=SCALE)
    assert blocks == 80
    assert torch.equal(state.album.slots[0].piece(0, blocks), before)


def test_what_a_query_reads_is_what_the_plan_says() -> None:
    for plan in PLANS.values():
        if isinstance(plan.opened, tuple):
            continue
        q, k, _ = texts(67, rows=1, heads=1, kv_heads=1)
        for t in range(67):
            tokens, _ = opened_keys(q[0, :, t], k[0, 0], t, plan, plan.opened, SCALE)
            assert len(tokens) == plan.reads(t)[0]


def test_half_precision_is_close() -> None:
    tensors = texts(150, dtype=torch.bfloat16)
    expected = full(*(x.float() for x in tensors))
    assert (ZoomState(EXACT).read(*tensors, scale=SCALE) - expected).abs().max() < 0.1
