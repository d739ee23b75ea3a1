from __future__ import annotations

import pytest
import torch

from foveate.train.ledger import Ledger

CPU = torch.device("cpu")


def test_a_line_is_the_mean_of_the_good_steps() -> None:
    ledger = Ledger(CPU, limit=10.0)
    for parts, norm in [((1.0, 2.0), 1.0), ((float("nan"), 1.0), 1.0), ((11.0,), 1.0), ((4.0,), float("inf"))]:
        for part in parts:
            ledger.add_loss(torch.tensor(part))
        ledger.end_step(torch.tensor(norm))
    ledger.add_loss(torch.tensor(5.0))
    ledger.end_step(torch.tensor(1.0))
    assert ledger.find_faults() == [1, 2, 3]
    line = ledger.end_line()
    assert line.faulty == [False, True, True, True, False]
    assert line.losses[2:] == [11.0, 4.0, 5.0]
    assert line.loss == 4.0
    assert ledger.find_faults() == []


def test_what_is_saved_in_the_middle_of_a_line_is_restored() -> None:
    one, other = Ledger(CPU, limit=10.0), Ledger(CPU, limit=10.0)
    for ledger in (one, other):
        for loss in (1.0, 20.0):
            ledger.add_loss(torch.tensor(loss))
            ledger.end_step(torch.tensor(1.0))
    restored = Ledger(CPU, limit=10.0)
    restored.restore(*one.state())
    for ledger in (restored, other):
        ledger.add_loss(torch.tensor(3.0))
        ledger.end_step(torch.tensor(1.0))
    mine, others = restored.end_line(), other.end_line()
    assert (mine.losses, mine.faulty) == (others.losses, others.faulty)
    empty = Ledger(CPU, limit=10.0)
    empty.restore(*Ledger(CPU, limit=10.0).state())
    assert empty.losses == []


def test_a_step_reads_nothing_from_the_device() -> None:
    """On the meta device there is nothing to read: an operation that waits for a GPU raises there."""
    ledger = Ledger(torch.device("meta"), limit=10.0)
    for _ in range(3):
        ledger.add_loss(torch.ones((), device="meta"))
        ledger.end_step(torch.ones((), device="meta"))
    with pytest.raises((RuntimeError, NotImplementedError)):
        ledger.end_line()
