import numpy as np
import torch

from foveate.model.clock import Clock, Span, rows_within

CPU = torch.device("cpu")


def test_rows_alike_have_plain_integers() -> None:
    clock = Clock(6, 5)
    fine, coarse = clock.span(1), clock.span(4)
    assert (fine.start, fine.count, fine.even, fine.size) == (6, 5, True, 5)
    assert (coarse.start, coarse.end, coarse.size, coarse.rows) == (1, 2, 1, None)
    assert coarse.positions(CPU).tolist() == [1]
    assert clock.span(16).size == 0


def test_each_row_keeps_its_own_phase() -> None:
    clock = Clock(np.array([3, 0, 7, 4]), np.array([1, 3, 6, 0]))
    coarse = clock.span(4)
    assert coarse.rows.tolist() == [0, 2]
    assert coarse.start.tolist() == [0, 1]
    assert coarse.count.tolist() == [1, 2]
    assert (coarse.size, coarse.longest) == (2, 3)
    assert coarse.positions(CPU).tolist() == [[0, 1], [1, 2]]


def test_rows_that_differ_only_in_this_call_or_only_before_it() -> None:
    assert not Clock(5, np.array([1, 2])).span(1).even
    assert Clock(np.array([5, 6]), 2).span(4).rows.tolist() == [1]


def test_fresh_is_about_all_rows_of_the_span() -> None:
    assert Clock(0, 3).span(1).fresh
    assert not Clock(1, 3).span(1).fresh
    assert Clock(1, 3).span(2).fresh
    assert not Clock(np.array([0, 2]), 3).span(1).fresh


def test_rows_of_a_coarser_level_within_those_of_a_finer_one() -> None:
    clock = Clock(np.array([3, 0, 7, 4]), np.array([1, 3, 6, 0]))
    tokens, pairs, fours = clock.span(1), clock.span(2), clock.span(4)
    assert tokens.rows.tolist() == [0, 1, 2]
    assert rows_within(tokens, pairs).tolist() == [0, 1, 2]
    assert rows_within(pairs, fours).tolist() == [0, 2]
    assert rows_within(Clock(0, 3).span(1), Clock(0, 3).span(2)) == slice(None)


def test_slots_name_each_new_item_once() -> None:
    span = Span(np.array([2, 9]), np.array([3, 1]), rows=np.array([0, 4]))
    row, column, batch_row, slot = (part.tolist() for part in span.slots(None, CPU))
    assert row == [0, 0, 0, 1]
    assert column == [0, 1, 2, 0]
    assert batch_row == [0, 0, 0, 4]
    assert slot == [2, 3, 4, 9]


def test_slots_of_a_ring_take_the_last_items_of_a_row() -> None:
    span = Span(np.array([2, 9]), np.array([5, 1]))
    row, column, _, slot = (part.tolist() for part in span.slots(3, CPU))
    assert row == [0, 0, 0, 1]
    assert column == [2, 3, 4, 0]
    assert slot == [1, 2, 0, 0]
