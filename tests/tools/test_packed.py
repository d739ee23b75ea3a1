"""What packing costs: rows are cut into as many texts as asked for, and every walk is timed both ways."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def packed() -> ModuleType:
    path = Path(__file__).parents[2] / "experiments" / "packed.py"
    spec = importlib.util.spec_from_file_location("packed", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_are_cut_at_random_places(packed: ModuleType) -> None:
    positions = packed.cut_rows(3, 40, 5, torch.Generator().manual_seed(0))
    assert (positions == 0).sum(1).tolist() == [5, 5, 5]
    assert set(positions.diff(dim=1)[positions[:, 1:] > 0].tolist()) == {1}
    assert not torch.equal(positions[0], positions[1])


def test_it_prints_a_ratio_for_every_walk(
    packed: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"context": 48, "batch": 1, "steps": 1, "documents": 4, "width": 32}
    monkeypatch.setattr(sys, "argv", ["packed.py", *(f"--{name}={value}" for name, value in small.items())])
    packed.main()
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split(" ")[0] for line in lines] == [walk.split(" ")[0] for walk in packed.WALKS]
    for line in lines:
        one, several, ratio = map(float, re.findall(r"(?:tokens/s, packed|one text|ratio) +([\d.]+)", line))
        assert several / one == pytest.approx(ratio, abs=0.02, rel=0.02)
