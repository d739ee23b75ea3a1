"""The one exception that means "the user can fix this": the command line prints it as one line and exits with 2."""

from __future__ import annotations

import reprlib
from typing import Any

LONGEST = 80

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = LONGEST
_short.maxlist = _short.maxtuple = _short.maxdict = 8


class FoveateError(ValueError):
    """Bad input. The message names what is wrong, with which value, and what to do instead."""


def shown(value: Any) -> str:
    """A value as an error's line shows it: its ``repr``, with the middle left out where it is long."""
    if isinstance(value, int) and value.bit_length() > 4 * LONGEST:
        return f"a number of {value.bit_length():,} bits"  # Python does not write out thousands of digits
    try:
        return _short.repr(value)
    except Exception:  # a number or a nesting as above inside it, or a __repr__ that fails
        return f"a {type(value).__name__}"


def first_line(error: BaseException) -> str:
    """What another library's exception says, for the line of one of ours."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    first, *more = str(error).strip().split("\n")
    text = f"{first} {more[0].strip()}" if more and first.endswith(":") else first
    return text[: 4 * LONGEST] or type(error).__name__
