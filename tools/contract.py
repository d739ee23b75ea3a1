"""Promises of the contract on many random walks: gradients of splits, rows at their own speed, packed documents.

    python tools/contract.py --walks 1000

prints the worst error of each in fp64, relative to the largest value where that is above 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from contracts import checks
from contracts.test_random_walks import packings, schedules, specs

ROWS = 3


def gradients(spec: Any, data: st.DataObject) -> None:
    checks.check_gradients(checks.make_decoder(spec), data.draw(schedules(ROWS, 6)))


def own_speed(spec: Any, data: st.DataObject) -> None:
    calls = st.lists(st.lists(st.integers(0, 4), min_size=ROWS, max_size=ROWS), min_size=1, max_size=12)
    checks.check_calls(checks.make_decoder(spec), data.draw(calls), extra_columns=data.draw(st.integers(0, 2)))


def packed(spec: Any, data: st.DataObject) -> None:
    checks.check_packed(checks.make_decoder(spec), data.draw(packings()))


PROMISES: dict[str, Callable[[Any, st.DataObject], None]] = {
    "gradients of splits": gradients,
    "rows at their own speed": own_speed,
    "packed documents": packed,
}


def worst_error(promise: Callable[[Any, st.DataObject], None], walks: int) -> tuple[float, int]:
    """The worst error that a promise is kept with, and how many comparisons that is of."""
    errors: list[float] = []
    compare = checks.assert_same

    def noted(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
        compare(actual, expected, tolerance, what)
        if actual.numel():
            errors.append((actual - expected).abs().max().item() / max(1.0, expected.abs().max().item()))

    checks.assert_same = noted
    try:
        limits = settings(
            max_examples=walks, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        limits(given(spec=specs(), data=st.data())(promise))()
    finally:
        checks.assert_same = compare
    return max(errors), len(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walks", type=int, default=1000, metavar="N", help="of each promise (default: 1000)")
    for name, promise in PROMISES.items():
        walks = parser.parse_args().walks
        error, compared = worst_error(promise, walks)
        print(f"{name:<24} {walks:>6,} random walks, {compared:>8,} comparisons, worst error {error:.1e}", flush=True)


if __name__ == "__main__":
    main()
