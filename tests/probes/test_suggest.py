"""Foveas that fit horizons, and that train accepts."""

from __future__ import annotations

import pytest

from foveate.errors import FoveateError
from foveate.probes.horizons import Horizon
from foveate.probes.suggest import suggest
from foveate.spec import parse_walk


def tokens(number: int) -> Horizon:
    return Horizon(tokens=number, low=number, high=number, tolerance_nats=0.01, farthest=4096)


@pytest.mark.parametrize(
    ("order", "topic", "walk"),
    [
        (0, 0, "12@1:fovea16,groups=4,scales=4"),
        (20, 20, "12@1:fovea32,groups=8,scales=4"),
        (50, 256, "12@1:fovea,scales=4/16"),
        (64, 1000, "12@1:fovea"),
        (65, 700, "12@1:fovea128,groups=32,scales=4/16"),
    ],
)
def test_a_suggestion_sees_what_matters(order, topic, walk) -> None:
    found = suggest(tokens(order), tokens(topic), layers=12)
    assert found.walk == walk
    (run,) = parse_walk(found.walk)
    assert found.exact == run.attention.block >= order
    assert found.grouped >= topic


def test_without_a_topic_horizon() -> None:
    with pytest.raises(FoveateError, match="--suggest takes the topic horizon"):
        suggest(tokens(20), None, layers=12)
