from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_table_of_bad_inputs_is_what_is_printed() -> None:
    result = subprocess.run(
        [sys.executable, "tools/bad_inputs.py"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 2 + 30
    page = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    assert result.stdout in page, "python tools/bad_inputs.py docs/robustness.md"
