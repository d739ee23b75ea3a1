"""What all probes share: conditions are scored as many rows at a time as the longest of them allows."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from foveate.probes.curves import Summary
from foveate.probes.horizons import Horizon
from foveate.probes.probe import Condition, measure
from foveate.probes.rare import _middles


class Sums:
    """In a ``Scorer``'s place: a token's loss is its id; ``asked`` for how long rows, and what was ``read``."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self.asked: list[int] = []
        self.read: list[tuple[int, ...]] = []

    def ready(self) -> nullcontext:
        return nullcontext()

    def rows(self, T: int) -> int:
        self.asked.append(T)
        return self.at_once

    def last(self, ids_BT: np.ndarray, K: int) -> np.ndarray:
        self.read.append(ids_BT.shape)
        return ids_BT[:, -K:].astype(np.float32)


@pytest.mark.parametrize("sequences", [1, 5])
def test_every_condition_is_scored_in_rows_of_a_batch(sequences: int) -> None:
    ids_NT = np.arange(sequences * 12).reshape(sequences, 12)
    parts_NP6 = ids_NT.reshape(-1, 2, 6)
    conditions = {
        "whole": Condition(rows=ids_NT, scored=4),
        "parts": Condition(rows=parts_NP6, scored=3),
    }
    scorer = Sums(2)
    found = measure(scorer, conditions, identity=dict, folder=None, progress=False)
    assert found["whole"].tolist() == ids_NT[:, -4:].tolist()
    assert found["parts"].tolist() == parts_NP6[..., 3:].tolist()
    assert scorer.asked == [12], "of the longest"
    steps = [min(2, sequences - start) for start in range(0, sequences, 2)]
    assert scorer.read == [shape for n in steps for shape in ((n, 12), (2 * n, 6))]


def test_a_horizon_at_the_end_of_what_was_measured_says_so() -> None:
    order, topic = (Horizon(tokens=n, low=9, high=32, tolerance_nats=0.1, farthest=32) for n in (20, 32))
    sizes = {"context": 64, "boundary": 32, "sequences": 9, "documents": 3, "permutations": 1}
    found = Summary(unit="word", order=order, topic=topic, order_share=None, **sizes).to_json()
    assert [found[f"{name}_horizon_at_least"] for name in ("order", "topic")] == [False, True]
    assert [found[f"{name}_horizon"] for name in ("order", "topic")] == [20, 32]


def test_of_each_document_the_middle_is_read() -> None:
    assert _middles(["a" * 40 + "middle" + "b" * 40, "short", "xéy"], 18) == ["middle", "short", "xéy"]
    assert _middles(["aaéaa"], 2) == ["é"]
