"""The crash tests of tools/, each with as few runs as show that it works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


def run_tool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=TOOLS.parent)


@pytest.mark.slow
def test_killed_twice_a_run_ends_as_if_it_had_not_been() -> None:
    result = run_tool(
        f"{TOOLS}/crash/kill.py", "--kills", "2", "--while-saving", "1", "--steps", "150", "--session", "0.5"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "equal, bit for bit" in result.stdout


@pytest.mark.slow
def test_a_damaged_file_is_passed_over_or_refused_by_name() -> None:
    result = run_tool(f"{TOOLS}/crash/damage.py", "--only", "process.safetensors")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "6 of 6 damages" in result.stdout


@pytest.mark.slow
def test_a_cache_whose_maker_is_killed_is_made_by_the_next() -> None:
    result = run_tool(f"{TOOLS}/crash/cache.py")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_a_full_disk_stops_a_run_in_one_line() -> None:
    result = run_tool(f"{TOOLS}/crash/full_disk.py", "--taken", "0")
    if result.returncode == 77:
        pytest.skip(f"this machine {result.stdout.strip()}")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "checkpoint-8 is whole: free some" in result.stdout
