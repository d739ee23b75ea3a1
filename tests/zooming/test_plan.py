"""Plans that cannot be are refused in a line, and the arithmetic of what is far."""

from __future__ import annotations

import pytest

from foveate.errors import FoveateError
from foveate.zooming import ZoomPlan


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"near": 0}, "near=0 must be a whole number of at least 1"),
        ({"sinks": -1}, "sinks=-1 must be"),
        ({"sinks": True}, "sinks=True must be"),
        ({"block": 1 << 16}, "block=65536 is more than 32768"),
        ({"groups": ()}, r"groups=\(\) has no size"),
        ({"groups": (64, 48, 4)}, "64 is not 48 doubled some times"),
        ({"groups": (512, 16, 4)}, "512 is not 512 doubled"),
        ({"groups": (96, 16, 4)}, "512 is not 96 doubled"),
        ({"keep": (1, 2)}, r"keep=\(1, 2\) needs 3 numbers"),
        ({"keep": (1, 0, 2)}, "keep=0 must be"),
        ({"opened": -1}, "opened=-1 must be"),
        ({"opened": (1, 2.5)}, "opened=2.5 must be"),
        ({"opened": ()}, r"opened=\(\) names no key head"),
        ({"thumbnails": -4}, "thumbnails=-4 must be"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(settings, line) -> None:
    with pytest.raises(FoveateError, match=line):
        ZoomPlan(**settings)


def test_far_text_by_hand() -> None:
    plan = ZoomPlan(near=100, sinks=4, block=64, groups=(16, 4), keep=(None, 4), opened=2, thumbnails=0)
    # the query at 118 sees 119 keys: 4 sinks, 100 near ones, and 15 that do not make a group of 16
    assert [plan.far(p) for p in (0, 118, 119, 134, 135)] == [0, 0, 16, 16, 32]
    assert [plan.blocks(p) for p in (166, 167, 230, 231)] == [0, 1, 1, 2]
    assert plan.alike(167) == 64
    assert plan.alike(0) == 167
    # at 167: 4 sinks, 100 near, 64 far in one block = 4 groups of 16, all looked into, 2 of 16 groups of 4 opened
    assert plan.reads(167) == (104 + 2 * 4, 16)
    # at 1190: 1,072 far, 16 blocks = 64 groups of 16 and 3 of the tail; 4 looked into
    assert plan.reads(1190) == (119 + 2 * 4 - 0, 67 + 16)


def test_lists_of_a_file_become_tuples() -> None:
    assert ZoomPlan(groups=[16, 4], keep=[None, 8], opened=[1, 2]) == ZoomPlan(
        groups=(16, 4), keep=(None, 8), opened=(1, 2)
    )
