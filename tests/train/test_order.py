from __future__ import annotations

from foveate.train.order import ShuffledEpochs


def test_every_epoch_has_every_item_once_in_another_order() -> None:
    drawn = list(ShuffledEpochs(size=50, draws=120, seed=3))
    assert len(drawn) == 120
    assert sorted(drawn[:50]) == sorted(drawn[50:100]) == list(range(50))
    assert drawn[:50] != drawn[50:100] != list(range(50))


def test_the_order_follows_from_the_seed_and_a_longer_run_begins_alike() -> None:
    short, long = (list(ShuffledEpochs(size=9, draws=draws, seed=3)) for draws in (20, 40))
    assert long[:20] == short
    assert short != list(ShuffledEpochs(size=9, draws=20, seed=4))
