"""The list of faults is of today's sources: their texts stand there, in every part as many as were asked for."""

from __future__ import annotations

import ast
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAULTS = [json.loads(line) for line in (ROOT / "tools" / "mutations.jsonl").read_text(encoding="utf-8").splitlines()]
LEAST = {
    "core": ({"spec", "model", "backends"}, 110),
    "hf": ({"hf"}, 45),
    "train": ({"train"}, 45),
    "probes": ({"probes", "scoring.py", "stats.py"}, 35),
    "bench": ({"bench", "report"}, 35),
    "data": ({"data", "loading"}, 30),
    "what is built on them": ({"converting", "promises", "serve", "zooming"}, 40),
}


@pytest.fixture
def mutations() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "tools"))
    import mutations

    yield mutations
    sys.path.remove(str(ROOT / "tools"))


def planted(fault: dict[str, str]) -> str | None:
    path = ROOT / "src" / "foveate" / fault["file"]
    source = path.read_text(encoding="utf-8") if path.exists() else ""
    return source.replace(fault["old"], fault["new"]) if source.count(fault["old"]) == 1 else None


def test_faults_are_of_todays_sources() -> None:
    """A line of src that moves takes its fault along or loses it: ``tools/mutations.py report`` names those."""
    standing = Counter(fault["file"].split("/")[0] for fault in FAULTS if planted(fault) is not None)
    for part, (folders, least) in LEAST.items():
        assert sum(standing[folder] for folder in folders) >= least, part
    assert sum(standing.values()) >= 300


def test_faults_are_faults_and_python() -> None:
    for fault in FAULTS:
        assert fault["old"] != fault["new"], fault
        text = planted(fault)
        if text is not None:
            ast.parse(text)


def test_every_fault_has_test_files_that_mirror_its_own(mutations, tmp_path) -> None:
    covering = mutations.Covering(ROOT, tmp_path)
    for file in {fault["file"] for fault in FAULTS if planted(fault) is not None}:
        assert covering.mirror(file), file
    assert covering.mirror("data/split.py")[0] == "tests/data/test_split.py"
    assert {"tests/data/test_rows.py", "tests/train/test_streaming.py"} <= set(covering.mirror("data/split.py"))


def test_what_passes_the_traced_tests_is_given_to_the_whole_folder_and_last_to_its_slow_tests(
    mutations, monkeypatch
) -> None:
    asked = []

    def only_a_slow_one_fails(root, arguments, plugin, seconds) -> tuple[int, str]:
        asked.append((arguments, plugin.passed if plugin else None))
        return (1, "b::test_slow") if arguments == ["-x", "-m", "slow", "b"] else (0, "")

    monkeypatch.setattr(mutations, "pytest_in_fork", only_a_slow_one_fails)
    batches = [["a::test_1"], ["b::test_2"]]
    assert mutations._killer(ROOT, batches) == ""
    assert asked == [(["-x", "-m", "not slow", *batch], None) for batch in batches]
    asked.clear()
    assert mutations._killer_beside(ROOT, ["a", "b"], batches) == "b::test_slow"
    marks = [("not slow", "a"), ("not slow", "b"), ("slow", "a"), ("slow", "b")]
    assert asked == [(["-x", "-m", *each], {"a::test_1", "b::test_2"}) for each in marks]


def test_a_fault_survives_only_if_all_of_them_passed(mutations, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(mutations, "OUTCOMES", tmp_path / "build" / "mutations.jsonl")
    fault = next(fault for fault in FAULTS if planted(fault) is not None and "explained" not in fault)
    outcomes = mutations.Outcomes()
    assert outcomes.of(fault, ROOT) is None
    for whole, outcome in ((False, None), (True, "survived")):
        outcomes.add(fault, "survived", "", whole)
        for known in (outcomes, mutations.Outcomes()):
            assert known.of(fault, ROOT) == outcome
            assert known.passed_quick(fault) == (not whole)
