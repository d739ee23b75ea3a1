"""The list of faults is of today's sources: their texts stand there, in every part as many as were asked for."""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAULTS = [json.loads(line) for line in (ROOT / "tools" / "mutations.jsonl").read_text(encoding="utf-8").splitlines()]
LEAST = {
    "core": ({"spec", "model", "backends"}, 110),
    "hf": ({"hf"}, 45),
    "train": ({"train"}, 45),
    "probes": ({"probes", "scoring.py", "stats.py"}, 35),
    "bench": ({"bench", "report"}, 35),
    "data": ({"data", "loading"}, 30),
}


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
