"""A few cases of every target; ``tools/fuzz.py`` tries as many as one has time for."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from transformers.utils import logging

from fuzz.targets import TARGETS

FEW = settings(max_examples=4, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def put_back_verbosity():
    verbosity = logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_our_own_errors_of_one_line(name, tmp_path) -> None:
    target = TARGETS[name](tmp_path)
    FEW(given(target.cases)(lambda case: target.check_variants(case) and None))()
