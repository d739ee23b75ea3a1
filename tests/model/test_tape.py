import copy

import numpy as np
import pytest
import torch

from foveate.model.clock import Span
from foveate.model.tape import Tape

CPU = torch.device("cpu")


def items(start: int, count: int, batch: int = 2) -> torch.Tensor:
    """[B, S, H=1, d=1]: item p of row b is 100 b + p."""
    return (100.0 * torch.arange(batch)[:, None] + torch.arange(start, start + count))[:, :, None, None]


def write(tape: Tape, start: int, count: int) -> None:
    span = Span(start, count)
    tape.reserve(span, 2, torch.float32, CPU)
    tape.write(0, span, items(start, count))


def held(tape: Tape, start: int, n: int) -> list[list[int]]:
    return tape.recent(0, Span(start, 0), n)[0][:, :, 0, 0].int().tolist()


def test_a_full_tape_grows_seldom() -> None:
    tape = Tape(stride=1, width=1)
    capacities = []
    for position in range(5000):
        write(tape, position, 1)
        capacities.append(tape.capacity)
    assert len(set(capacities)) <= 12
    assert max(capacities) < 1.6 * 5000
    assert held(tape, 5000, 5000) == items(0, 5000)[:, :, 0, 0].int().tolist()


def test_a_long_prompt_gets_little_more_than_it_needs() -> None:
    tape = Tape(stride=1, width=1)
    write(tape, 0, 10_000)
    assert 10_000 < tape.capacity < 10_200


def test_a_ring_never_grows() -> None:
    tape = Tape(stride=1, width=1, keep=5)
    start = 0
    for count in (1, 2, 9, 1, 1, 4, 5, 13, 1):
        write(tape, start, count)
        start += count
        assert tape.capacity == 5
        n = min(start, 5)
        assert held(tape, start, n) == [[row + start - n + i for i in range(n)] for row in (0, 100)]


def test_before_the_first_item_there_is_something_finite() -> None:
    tape = Tape(stride=1, width=1, keep=4)
    write(tape, 0, 2)
    recent = tape.recent(0, Span(2, 1), 4)[0]
    assert recent.isfinite().all()
    assert recent[0, 2:, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize("keep", [None, 4])
def test_ragged_rows_write_their_own_slots(keep: int | None) -> None:
    tape = Tape(stride=1, width=1, keep=keep)
    write(tape, 0, 3)
    span = Span(np.array([3]), np.array([2]), rows=np.array([1]))  # row 1 alone goes on
    tape.reserve(span, 2, torch.float32, CPU)
    tape.write(0, span, items(3, 2)[1:])
    both = Span(np.array([3, 5]), np.array([0, 0]))
    assert tape.recent(0, both, 3)[0][:, :, 0, 0].tolist() == [[0, 1, 2], [102, 103, 104]]


def test_slot_positions_of_a_ring() -> None:
    tape = Tape(stride=1, width=1, keep=4)
    assert tape.slot_positions(Span(0, 2), CPU).tolist() == [[0, 1, -2, -1]]
    assert tape.slot_positions(Span(4, 2), CPU).tolist() == [[4, 5, 2, 3]]
    ragged = Span(np.array([4, 0]), np.array([2, 1]))
    assert tape.slot_positions(ragged, CPU).tolist() == [[4, 5, 2, 3], [0, -3, -2, -1]]


def test_a_group_never_wraps_around_the_end_of_its_ring() -> None:
    tape = Tape(stride=1, width=1, keep=4, multiple=4)
    tape.set_slack(3, 0)
    assert tape.ring is not None
    assert tape.ring % 4 == 0
    assert tape.ring >= 4 + 3


def test_a_ring_that_grows_keeps_what_it_holds() -> None:
    tape = Tape(stride=1, width=1, keep=4)
    write(tape, 0, 6)
    tape.set_slack(3, 6)
    assert tape.ring == 8
    assert tape.recent(0, Span(6, 1), 4)[0][:, :, 0, 0].tolist() == [[2, 3, 4, 5], [102, 103, 104, 105]]
    write(tape, 6, 3)
    assert tape.recent(0, Span(9, 1), 7)[0][1, :, 0, 0].tolist() == [102, 103, 104, 105, 106, 107, 108]


def test_rows_and_copies() -> None:
    tape = Tape(stride=1, width=1, layers=1)
    write(tape, 0, 2)
    twin = copy.deepcopy(tape)
    tape.take_rows(torch.tensor([1, 1, 0]))
    assert held(tape, 2, 2) == [[100, 101], [100, 101], [0, 1]]
    assert held(twin, 2, 2) == [[0, 1], [100, 101]]
    write(twin, 2, 1)
    assert held(tape, 2, 2)[2] == [0, 1]


def test_bytes_count_capacity() -> None:
    tape = Tape(stride=1, width=16, heads=4, keep=8, layers=3, parts=2)
    assert tape.nbytes == 0
    tape.reserve(Span(0, 1), 2, torch.bfloat16, CPU)
    assert tape.nbytes == 3 * 2 * 2 * 4 * 8 * 16 * 2


def test_a_tape_made_under_inference_mode_can_be_written_after_it() -> None:
    tape = Tape(stride=1, width=1)
    with torch.inference_mode():
        write(tape, 0, 2)
    write(tape, 2, 1)
    assert held(tape, 3, 3)[1] == [100, 101, 102]
