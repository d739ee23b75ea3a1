"""The map from positions to slots against one that is written down item by item."""

import numpy as np
import pytest
import torch

from foveate.model.slots import RegionSlots, Slots
from foveate.spec import Fovea


def written(keep: int, pinned: int, ring: int, items: int) -> list[int]:
    """The position in each slot after ``items`` items were written one after another, -1 where none is."""
    slots = [-1] * (pinned + ring)
    for position in range(items):
        slots[position if position < pinned else pinned + (position - pinned) % ring] = position
    return slots


@pytest.mark.parametrize(("keep", "pinned", "slack"), [(4, 0, 0), (4, 3, 0), (1, 4, 0), (5, 0, 3), (5, 2, 3)])
def test_a_slot_holds_what_was_written_there_last(keep: int, pinned: int, slack: int) -> None:
    slots = Slots(keep=keep, pinned=pinned, slack=slack)
    for items in range(1, 30):
        held = written(keep, pinned, keep + slack, items)
        found = slots.position(torch.tensor([[items - 1]]), torch.arange(len(held)))[0]
        assert [max(position, -1) for position in found.tolist()] == held
        assert sorted(position for position in held if position >= 0) == slots.held(items).tolist()
        assert [held[slot] for slot in slots.of(slots.held(items))] == slots.held(items).tolist()
        assert slots.size(items) == min(items, pinned + keep + slack)
    for position in (0, 3, 17):
        assert slots.of(position) == slots.of(np.array([position]))[0] == slots.of(torch.tensor(position))


def test_everything_is_kept_in_order() -> None:
    slots = Slots()
    assert (slots.ring, slots.bound) == (None, None)
    assert slots.of(7) == 7
    assert slots.size(9) == 9
    assert slots.position(torch.tensor([[1]]), torch.arange(3)).tolist() == [[0, 1, -1]]


def test_rows_can_be_cut_as_far_as_nothing_needed_is_overwritten() -> None:
    window = Slots(keep=4)
    for furthest in range(20):
        for shorter in range(furthest + 1):
            held = set(range(max(furthest - 4, 0), furthest))
            # the next item, at ``shorter``, looks back at the three before it
            needed = set(range(max(shorter - 3, 0), shorter))
            assert window.can_shorten(furthest, shorter) == (needed <= held and (shorter >= 3 or furthest <= 4))
    assert Slots(keep=4, slack=2).can_shorten(10, 8)
    assert not Slots(keep=4, slack=2).can_shorten(10, 6)


def test_a_ring_is_a_whole_number_of_groups() -> None:
    for slack in (1, 3, 4):
        assert Slots(keep=4, multiple=4).with_slack(slack).ring == 8


def test_of_one_item_kept_none_can_be_taken_back() -> None:
    assert Slots(keep=1).can_shorten(10, 10)
    assert not Slots(keep=1).can_shorten(10, 9)


def test_a_fovea_is_cut_within_its_open_block_or_as_far_as_slack_reaches() -> None:
    slots = RegionSlots(fovea=Fovea(block=4, groups=4, scales=(2,)))
    assert slots.can_shorten(8, 5)
    assert not slots.can_shorten(8, 4)  # exactly a block's end: its last unit is in a closed block
    assert slots.can_shorten(8, 8)
    more = slots.with_slack(3)
    assert more.can_shorten(12, 9)
    assert not more.can_shorten(12, 8)


@pytest.mark.parametrize("items", [3, 17, 40])
def test_a_fovea_that_remembers_more_moves_just_what_it_holds(items: int) -> None:
    slots = RegionSlots(fovea=Fovea(block=4, groups=4, scales=(2, 4)))
    more = slots.with_slack(6)
    held: dict[int, tuple[int, int]] = {}  # by slot the region, and which of its units or groups was written last
    for unit in range(items):
        held[slots.of(unit)] = 0, unit
    block = (items - 1) // 4
    for j, end in enumerate(slots.fovea.ends(block, slots.fovea.regions(items)), 1):
        for group in range(end // slots.fovea.scale(j)):
            held[slots.of_group(j, group)] = j, group
    source, target = slots.moves(items, more)
    assert sorted(source.tolist()) == sorted(held), "everything, and nothing twice"
    moved = [held[slot] for slot in source.tolist()]
    assert target.tolist() == [more.of(n) if j == 0 else more.of_group(j, n) for j, n in moved]
