"""What every target of fuzzing has in common. Any error but a ``FoveateError`` of one line is a bug."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from transformers.utils import logging

from foveate.errors import FoveateError

MOST_SECONDS = 5.0  # of a case and its variations, in processor time
LONGEST_LINE = 1000


VARIATIONS = 19


@dataclass(frozen=True, kw_only=True)
class Target:
    """``check(case)`` is True for a case that is accepted, False for one that is refused as it should be.

    Drawing a case takes hypothesis longer than checking it, so each is checked in a few random variations too.
    """

    cases: st.SearchStrategy[Any]
    check: Callable[[Any], bool]
    vary: Callable[[Any, Random], Any]

    def check_variants(self, case: Any) -> list[bool]:
        """What ``check`` says of the case and of its variations, which are always the same for a case."""
        began = time.process_time()
        chance = Random(repr(case))
        accepted = []
        for variant in (case, *(self.vary(case, chance) for _ in range(VARIATIONS))):
            note(f"variant {variant!r}")
            accepted.append(self.check(variant))
        assert time.process_time() - began < MOST_SECONDS
        return accepted


def accepts(action: Callable[[], Any]) -> bool:
    """Whether ``action`` runs through; a refusal has to be one line."""
    try:
        action()
        return True
    except FoveateError as error:
        line = str(error)
        assert line.strip()
        assert "\n" not in line
        assert len(line) < LONGEST_LINE
        return False


def quiet() -> None:
    """Without the warnings of libraries, of which there would be a hundred thousand."""
    logging.set_verbosity(logging.CRITICAL + 1)
    logging.disable_progress_bar()
