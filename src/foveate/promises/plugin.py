"""A pytest plugin: every promise as a test of its own.

In a ``conftest.py`` stands ``pytest_plugins = ["foveate.promises.plugin"]``, and a test takes ``promise``::

    def test_my_model(promise):
        promise(MyModel())

It runs once for each promise, fails where that is broken, and is skipped where it is not offered. ``--promises`` names
those to check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from foveate.promises.check import check
from foveate.promises.registry import PROMISES
from foveate.promises.report import BROKEN, NOT_OFFERED, describe


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--promises", nargs="+", metavar="NAME", help="check these promises of foveate alone")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "promise" in metafunc.fixturenames:
        names = metafunc.config.getoption("--promises") or [promise.name for promise in PROMISES]
        metafunc.parametrize("promise", names, indirect=True)


@pytest.fixture
def promise(request: pytest.FixtureRequest) -> Callable[..., None]:
    """A function of a model, and of what ``foveate.check`` takes, that holds one promise against it."""

    def hold(model: nn.Module, **how: Any) -> None:
        finding = check(model, promises=[request.param], **how).findings[0]
        if finding.state == NOT_OFFERED:
            pytest.skip(f"not offered: {finding.note}")
        assert finding.state != BROKEN, describe(finding)

    return hold
