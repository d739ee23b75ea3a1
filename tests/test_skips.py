"""``make test`` skips nothing but what the machine itself cannot do: whatever else is skipped fails."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import pytest

def test_package():
    pytest.importorskip("no_such_package")

@pytest.mark.skipif(True, reason="not today")
def test_condition(): ...

@pytest.mark.skipif(True, reason="this machine has no GPU")
def test_hardware(): ...

@pytest.mark.xfail(strict=True)
def test_known(): assert False

def test_well(): ...
"""


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), {"passed": 1, "xfailed": 1, "skipped": 4}),
        (("--no-skips",), {"passed": 1, "xfailed": 1, "skipped": 1, "failed": 1, "errors": 2}),
    ],
)
def test_a_skip_is_a_failure(pytester: pytest.Pytester, words: tuple[str, ...], wanted: dict[str, int]) -> None:
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(TESTS, test_whole_module="import pytest\npytest.importorskip('no_such_package')")
    result = pytester.runpytest_inprocess("--continue-on-collection-errors", "-p", "no:cacheprovider", *words)
    result.assert_outcomes(**wanted)
