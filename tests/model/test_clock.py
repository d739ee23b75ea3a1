import numpy as np
import torch

from foveate.model.clock import Clock, Units, rows_within

CPU = torch.device("cpu")
STRIDES = (1, 2, 4, 16)


def test_rows_alike_have_plain_integers() -> None:
    clock = Clock(6, 5, STRIDES)
    fine, coarse = clock.units(1), clock.units(4)
    assert (fine.start, fine.count, fine.aligned, fine.full, fine.size) == (6, 5, True, True, 5)
    assert (coarse.start, coarse.end, coarse.size, coarse.rows) == (1, 2, 1, None)
    assert coarse.positions(CPU).tolist() == [1]
    assert clock.units(16).size == 0


def test_each_row_keeps_its_own_phase() -> None:
    clock = Clock(np.array([3, 0, 7, 4]), np.array([1, 3, 6, 0]), STRIDES)
    coarse = clock.units(4)
    assert coarse.rows.tolist() == [0, 2]
    assert coarse.start.tolist() == [0, 1]
    assert coarse.count.tolist() == [1, 2]
    assert (coarse.size, coarse.longest) == (2, 3)
    assert coarse.positions(CPU).tolist() == [[0, 1], [1, 2]]
    assert coarse.starts(CPU).tolist() == [[0], [1]]
    assert coarse.counts(CPU).tolist() == [[1], [2]]
    assert coarse.row_index(CPU).tolist() == [0, 2]


def test_rows_that_begin_alike_are_aligned_however_they_end() -> None:
    tokens = Clock(5, np.array([1, 2]), STRIDES).units(1)
    assert (tokens.aligned, tokens.full, tokens.first, tokens.size) == (True, False, 5, 2)
    apart = Clock(np.array([5, 6]), 2, STRIDES)
    assert not apart.units(1).aligned
    assert apart.units(1).full
    assert apart.units(4).rows.tolist() == [1]
    assert apart.units(4).aligned, "of the rows that are left"


def test_fresh_is_about_all_rows_of_the_units() -> None:
    assert Clock(0, 3, STRIDES).units(1).fresh
    assert not Clock(1, 3, STRIDES).units(1).fresh
    assert Clock(1, 3, STRIDES).units(2).fresh
    assert not Clock(np.array([0, 2]), 3, STRIDES).units(1).fresh


def test_rows_of_a_coarser_level_within_those_of_a_finer_one() -> None:
    clock = Clock(np.array([3, 0, 7, 4]), np.array([1, 3, 6, 0]), STRIDES)
    tokens, pairs, fours = clock.units(1), clock.units(2), clock.units(4)
    assert tokens.rows.tolist() == [0, 1, 2]
    assert rows_within(tokens, pairs.rows).tolist() == [0, 1, 2]
    assert rows_within(pairs, fours.rows).tolist() == [0, 2]
    assert fours.rows_within_finer(CPU).tolist() == [0, 2]
    assert Clock(0, 3, STRIDES).units(2).rows_within_finer(CPU) is None


def test_what_is_held_of_a_coarser_level() -> None:
    held = Clock(np.array([3, 0, 9]), np.array([1, 3, 6]), STRIDES).units(1).held(4)
    assert held.start.tolist() == held.starts(CPU)[:, 0].tolist() == [0, 0, 2]
    assert held.size == 0


def test_numbers_of_all_levels_go_to_the_device_together(monkeypatch) -> None:
    moved = []
    from_numpy = torch.from_numpy
    monkeypatch.setattr(torch, "from_numpy", lambda array: moved.append(array.shape) or from_numpy(array))
    clock = Clock(np.array([3, 0, 7]), np.array([1, 3, 6]), STRIDES)
    for stride in STRIDES:
        clock.units(stride).starts(CPU)
        clock.units(stride).row_index(CPU)
    assert len(moved) == 1


def test_alone_units_know_their_numbers_too() -> None:
    assert Units(np.array([4, 2]), 1).starts(CPU).tolist() == [[4], [2]]


def test_the_longest_row_is_one_that_there_is() -> None:
    assert Units(np.array([3, 10]), np.array([5, 1])).longest == 11
    assert Units(np.array([3, 10]), 2).longest == 12
