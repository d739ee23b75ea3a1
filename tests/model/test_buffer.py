import copy

import numpy as np
import pytest
import torch

from foveate.model.buffer import Buffer
from foveate.model.clock import Units
from foveate.model.slots import Slots

CPU = torch.device("cpu")


def items(start: int, count: int, batch: int = 2) -> torch.Tensor:
    """[B, S, H=1, d=1]: item p of row b is 100 b + p."""
    return (100.0 * torch.arange(batch)[:, None] + torch.arange(start, start + count))[:, :, None, None]


def write(buffer: Buffer, start: int, count: int) -> None:
    place = buffer.reserve(Units(start, count), 2, torch.float32, CPU)
    buffer.write(0, place, items(start, count))


def held(buffer: Buffer, start: int, n: int) -> list[list[int]]:
    return buffer.recent(0, Units(start, 0), n)[0][:, :, 0, 0].int().tolist()


def test_what_keeps_everything_grows_seldom() -> None:
    buffer = Buffer(stride=1, width=1)
    capacities = []
    for position in range(5000):
        write(buffer, position, 1)
        capacities.append(buffer.capacity)
    assert len(set(capacities)) <= 12
    assert max(capacities) < 1.6 * 5000
    assert held(buffer, 5000, 5000) == items(0, 5000)[:, :, 0, 0].int().tolist()


def test_a_long_prompt_gets_little_more_than_it_needs() -> None:
    buffer = Buffer(stride=1, width=1)
    write(buffer, 0, 10_000)
    assert 10_000 < buffer.capacity < 10_200


@pytest.mark.parametrize("pinned", [0, 2])
def test_a_ring_grows_to_its_bound_and_no_further(pinned: int) -> None:
    buffer = Buffer(stride=1, width=1, slots=Slots(keep=500, pinned=pinned))
    write(buffer, 0, 1)
    assert buffer.capacity < 150
    start = 1
    for count in (1, 2, 9, 1, 1, 4, 5, 13, 600, 1, 1300, 1):
        write(buffer, start, count)
        start += count
        assert buffer.capacity <= 500 + pinned
        n = min(start, 500)
        assert held(buffer, start, n) == [[row + start - n + i for i in range(n)] for row in (0, 100)]
        first = buffer.read(0, Units(start, 0), min(start, pinned))[0][1, 0, :, 0].tolist()
        assert first == [100 + i for i in range(min(start, pinned))]


def test_before_the_first_item_there_is_something_finite() -> None:
    buffer = Buffer(stride=1, width=1, slots=Slots(keep=4))
    write(buffer, 0, 2)
    recent = buffer.recent(0, Units(2, 1), 4)[0]
    assert recent.isfinite().all()
    assert recent[0, 2:, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize("keep", [None, 4])
@pytest.mark.parametrize("live", [False, True])
def test_rows_apart_write_their_own_slots(keep: int | None, live: bool) -> None:
    buffer = Buffer(stride=1, width=1, slots=Slots(keep=keep))
    buffer.live = live
    write(buffer, 0, 3)
    alone = Units(np.array([3]), np.array([2]), rows=np.array([1]))  # row 1 goes on
    buffer.write(0, buffer.reserve(alone, 2, torch.float32, CPU), items(3, 2)[1:])
    both = Units(np.array([3, 5]), np.array([0, 0]))
    assert buffer.recent(0, both, 3)[0][:, :, 0, 0].tolist() == [[0, 1, 2], [102, 103, 104]]
    uneven = Units(np.array([3, 5]), np.array([1, 9]))
    new = torch.cat((items(3, 9)[:1], items(5, 9)[1:]))
    buffer.write(0, buffer.reserve(uneven, 2, torch.float32, CPU), new)
    both = Units(np.array([4, 14]), np.array([0, 0]))
    assert buffer.recent(0, both, 4)[0][:, :, 0, 0].tolist() == [[0, 1, 2, 3], [110, 111, 112, 113]]


@pytest.mark.parametrize("keep", [None, 4])
def test_gradients_go_through_what_is_written(keep: int | None) -> None:
    buffer = Buffer(stride=1, width=1, slots=Slots(keep=keep))
    buffer.live = True
    new = items(0, 3).requires_grad_()
    buffer.write(0, buffer.reserve(Units(0, 3), 2, torch.float32, CPU), new)
    more = items(3, 2).requires_grad_()
    buffer.write(0, buffer.reserve(Units(3, 2), 2, torch.float32, CPU), more)
    read = buffer.recent(0, Units(5, 1), 4)[0]
    first, second = torch.autograd.grad((read * torch.tensor([1.0, 2, 3, 4])[:, None, None]).sum(), (new, more))
    assert first[0, :, 0, 0].tolist() == [0, 1, 2]
    assert second[0, :, 0, 0].tolist() == [3, 4]


def test_a_ring_that_remembers_more_keeps_what_it_holds() -> None:
    buffer = Buffer(stride=1, width=1, slots=Slots(keep=4))
    write(buffer, 0, 6)
    buffer.set_slack(3, 6)
    assert buffer.slots.ring == 8
    assert buffer.recent(0, Units(6, 1), 4)[0][:, :, 0, 0].tolist() == [[2, 3, 4, 5], [102, 103, 104, 105]]
    write(buffer, 6, 3)
    assert buffer.recent(0, Units(9, 1), 7)[0][1, :, 0, 0].tolist() == [102, 103, 104, 105, 106, 107, 108]


def test_rows_and_copies() -> None:
    buffer = Buffer(stride=1, width=1)
    write(buffer, 0, 2)
    twin = copy.deepcopy(buffer)
    buffer.take_rows(torch.tensor([1, 1, 0]))
    assert held(buffer, 2, 2) == [[100, 101], [100, 101], [0, 1]]
    assert held(twin, 2, 2) == [[0, 1], [100, 101]]
    write(twin, 2, 1)
    assert held(buffer, 2, 2)[2] == [0, 1]


def test_bytes_count_capacity() -> None:
    buffer = Buffer(stride=1, width=16, heads=4, slots=Slots(keep=8), layers=3, parts=2)
    assert buffer.nbytes == 0
    buffer.reserve(Units(0, 1), 2, torch.bfloat16, CPU)
    assert buffer.nbytes == 3 * 2 * 2 * 4 * 8 * 16 * 2


def test_what_is_held_takes_on_the_type_of_the_next_call() -> None:
    buffer = Buffer(stride=1, width=1)
    buffer.write(0, buffer.reserve(Units(0, 2), 2, torch.bfloat16, CPU), items(0, 2).bfloat16())
    write(buffer, 2, 1)
    assert buffer.data.dtype == torch.float32
    assert held(buffer, 3, 3)[1] == [100, 101, 102]


def test_a_buffer_made_under_inference_mode_can_be_written_after_it() -> None:
    buffer = Buffer(stride=1, width=1)
    with torch.inference_mode():
        write(buffer, 0, 2)
    write(buffer, 2, 1)
    assert held(buffer, 3, 3)[1] == [100, 101, 102]


def test_one_layer_in_a_graph_is_enough() -> None:
    buffer = Buffer(stride=1, width=1, layers=3)
    buffer.live = True
    place = buffer.reserve(Units(0, 2), 2, torch.float32, CPU)
    buffer.write(0, place, items(0, 2))
    assert not buffer.in_graph
    buffer.write(1, place, items(0, 2).requires_grad_())
    assert buffer.in_graph
