"""What every test can count on."""

from __future__ import annotations

import signal
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

MACHINE = "this machine "  # how the reason of a skip begins that no package would end: hardware, or a right


# how long an example takes says how busy the machine is
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips", action="store_true", help=f"a test that is skipped fails, but for a reason in '{MACHINE}...'"
    )


def pytest_configure() -> None:
    """Ctrl-C interrupts, also where a shell has started the tests in the background and so has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    return _without_skip((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    return _without_skip((yield), collector.config)


def _without_skip(report: Any, config: pytest.Config) -> Any:
    """The report, failed where it is of a skip that is not to be."""
    if report.skipped and config.getoption("--no-skips") and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if not reason.startswith(MACHINE):
            report.outcome, report.longrepr = "failed", f"skipped, with --no-skips: {reason}"
    return report
