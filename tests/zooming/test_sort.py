"""The order of a block: balanced, nested, along the principal direction, and the same for every head at once."""

from __future__ import annotations

import torch

from foveate.zooming.reference import split
from foveate.zooming.sort import _along_principal, sorted_order


def test_an_order_is_a_permutation_and_equals_one_head_at_a_time() -> None:
    torch.manual_seed(0)
    keys = torch.randn(2, 3, 64, 5, dtype=torch.float64)
    order = sorted_order(keys, 4)
    assert order.shape == (2, 3, 64)
    assert torch.equal(order.sort(-1).values, torch.arange(64).expand(2, 3, 64))
    for row in range(2):
        for head in range(3):
            groups = order[row, head].view(-1, 4).sort(-1).values.tolist()
            expected = torch.tensor(split(keys[row, head], list(range(64)), 4)).view(-1, 4).sort(-1).values.tolist()
            assert groups == expected


def test_keys_that_point_the_same_way_become_neighbours_at_every_size() -> None:
    torch.manual_seed(0)
    coarse, fine = 9 * torch.randn(4, 1, 8), 3 * torch.randn(4, 4, 8)
    keys = (coarse + fine)[:, :, None] + 0.01 * torch.randn(4, 4, 4, 8)  # 4 clusters of 4 clusters of 4 keys
    shuffle = torch.randperm(64)
    order = shuffle[sorted_order(keys.flatten(0, 2)[shuffle], 4)]
    assert all(len(set(group.tolist())) == 1 for group in (order // 4).view(16, 4))
    assert all(len(set(group.tolist())) == 1 for group in (order // 16).view(4, 16))


def test_the_direction_is_the_principal_one() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 128, 6, dtype=torch.float64) * torch.tensor([3.0, 1, 1, 1, 1, 1])
    x = x - x.mean(1, keepdim=True)
    along = _along_principal(x)
    best = torch.linalg.svdvals(x)[:, 0]
    assert (along.norm(dim=1) > 0.99 * best).all()


def test_sorting_makes_means_true() -> None:
    torch.manual_seed(0)
    keys = torch.randn(512, 16).cumsum(0) * 0.05 + torch.randn(512, 16)

    def spread(order) -> float:
        groups = keys[order].view(-1, 4, 16)
        return float((groups - groups.mean(1, keepdim=True)).square().mean())

    assert spread(sorted_order(keys, 4)) < 0.7 * spread(torch.arange(512))


def test_keys_that_are_all_alike_stay_in_their_order() -> None:
    assert sorted_order(torch.ones(16, 3), 2).tolist() == list(range(16))
    assert sorted_order(torch.ones(16, 3, dtype=torch.bfloat16), 2).tolist() == list(range(16))
