"""docs/check.md shows every promise, and what its blocks print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import transformers

from foveate.promises.registry import PROMISES

PAGE = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
SETUP, *BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.partition("Everything that is broken")[2], re.S)
MADE_WITH = re.search(r"transformers ([\d.]+),", PAGE)[1]  # type: ignore[index]


def test_every_promise_is_described() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", PAGE, re.M)
    assert rows == [(promise.name, promise.says) for promise in PROMISES]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`(past_key_values|cache_params)` is deprecated:FutureWarning")  # as it is written
def test_what_is_broken_by_hand_is_off_by_what_is_written(capsys) -> None:
    assert len(BLOCKS) >= 10
    for block in BLOCKS:
        assert len(block.splitlines()) == 3
        names: dict[str, Any] = {}
        exec(SETUP, names)
        capsys.readouterr()
        exec(block, names)
        off = float(capsys.readouterr().out)
        if transformers.__version__ == MADE_WITH:  # another release may have mended it
            assert off == pytest.approx(float(block.rpartition("# ")[2]), rel=0.1), block
