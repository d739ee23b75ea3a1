"""The pytest plugin: in the three lines that docs/check.md shows, each promise is a test of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

SUITE = """
from promises.faults import llama, sees_the_next_token

def test_sound(promise):
    promise(llama(), length=6)

def test_broken(promise):
    model = llama()
    sees_the_next_token(model)
    promise(model, length=6)
"""


def run(folder: Path, text: str, *words: str) -> int:
    (folder / "test_it.py").write_text(text)
    (folder / "conftest.py").write_text('pytest_plugins = ["foveate.promises.plugin"]\n')
    (folder / "pytest.ini").write_text("[pytest]\n")
    return pytest.main([str(folder), f"--rootdir={folder}", "-rA", "-p", "no:cacheprovider", *words])


def test_a_promise_is_a_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, SUITE, "--promises", "causal", "row-alone") == pytest.ExitCode.TESTS_FAILED
    printed = capsys.readouterr().out
    passed = {line.split("::")[1] for line in printed.splitlines() if line.startswith("PASSED")}
    assert passed == {"test_sound[causal]", "test_sound[row-alone]", "test_broken[row-alone]"}
    assert "causal: off by" in printed and "from model.layers.1.self_attn on" in printed
    assert "3 passed" in printed and "1 failed" in printed
