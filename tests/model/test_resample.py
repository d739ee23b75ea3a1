"""What pooling and expanding do to numbers small enough to check by hand."""

import pytest
import torch
from torch import Tensor, nn

from foveate import spec
from foveate.model.clock import Clock
from foveate.model.resample import Downsample, Upsample

FINE = spec.Level(stride=1, width=2, heads=1, kv_heads=1, feed_forward=2)
COARSE = spec.Level(stride=3, width=2, heads=1, kv_heads=1, feed_forward=2)
DOWN, UP = spec.Pool(source=1, stride=3), spec.Expand(source=3, stride=1)


def pooled(pool: Downsample, x_BTD: Tensor) -> Tensor:
    pool.norm = nn.Identity()
    clock = Clock(0, x_BTD.shape[1], (1, 3))
    return pool(x_BTD, clock.units(1), clock.units(3), (), len(x_BTD))


def expanded(expand: Upsample, tokens: int, z_BSC: Tensor) -> Tensor:
    """What is added to a stream of zeros."""
    expand.norm = nn.Identity()
    clock = Clock(0, tokens, (1, 3))
    with torch.no_grad():
        return expand(torch.zeros(1, tokens, 2), z_BSC, clock.units(1), clock.units(3), (), 1)


def column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[None, :, None].expand(-1, -1, 2)


def test_mean_of_complete_groups_only() -> None:
    out = pooled(Downsample(DOWN, FINE, COARSE, "mean", 1e-6), column([1, 2, 6, 10, 20, 30, 99, 99]))
    assert out[0, :, 0].tolist() == [3, 20]


def test_linear_sees_the_order_within_a_group() -> None:
    pool = Downsample(DOWN, FINE, COARSE, "linear", 1e-6)
    with torch.no_grad():
        pool.proj.weight.copy_(torch.tensor([[1.0, 0, 10, 0, 100, 0], [0] * 6]))
    assert pooled(pool, column([1, 2, 3, 4, 5, 6]))[0, :, 0].tolist() == [321, 654]


def test_attention_may_choose_a_place() -> None:
    pool = Downsample(DOWN, FINE, COARSE, "attention", 1e-6)
    with torch.no_grad():
        pool.kv_proj.weight.copy_(torch.cat((torch.zeros(2, 2), torch.eye(2))))
        pool.o_proj.weight.copy_(torch.eye(2))
        pool.place_bias.copy_(torch.tensor([[0.0, 99, 0]]))
        out = pooled(pool, column([1, 2, 6, 10, 20, 30]))
    torch.testing.assert_close(out[0, :, 0], torch.tensor([3.0 + 2, 20 + 20]))


def test_fewer_tokens_than_a_group_make_no_unit() -> None:
    assert pooled(Downsample(DOWN, FINE, COARSE, "linear", 1e-6), column([1, 2])).shape == (1, 0, 2)


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        # a unit is complete with its third token, and stays until the next one is
        ("repeat", [-1, -1, 10, 10, 10, 20, 20, 20]),
        # the place in the group picks the vector: 1, 2 or 3 times the unit, -1, -2, -3 before there is one
        ("linear", [-2, -3, 10, 20, 30, 20, 40, 60]),
    ],
)
def test_a_unit_is_seen_from_the_token_that_completes_it(kind: str, seen: list[int]) -> None:
    expand = Upsample(UP, FINE, COARSE, kind, eps=1e-6)
    with torch.no_grad():
        scales = torch.arange(1.0, expand.places + 1)
        expand.proj.weight.copy_((scales[:, None, None] * torch.eye(2)).flatten(0, 1))
        expand.start.copy_(-scales[:, None].expand(-1, 2))
    assert expanded(expand, 8, column([10, 20]))[0, :, 0].tolist() == seen


def test_attention_looks_at_all_complete_units_and_the_start() -> None:
    expand = Upsample(UP, FINE, COARSE, "attention", eps=1e-6)
    with torch.no_grad():
        expand.proj.weight.zero_()
        expand.lookup.q_proj.weight.zero_()  # every unit alike: the mean of all
        expand.lookup.kv_proj.weight.copy_(torch.cat((torch.zeros(2, 2), torch.eye(2))))
        expand.lookup.o_proj.weight.copy_(torch.eye(2))
        expand.lookup.start_unit.fill_(3)
    out = expanded(expand, 8, column([9, 30]))[0, :, 0]
    torch.testing.assert_close(out, torch.tensor([3.0, 3, 6, 6, 6, 14, 14, 14]))
