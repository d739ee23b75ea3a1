from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from foveate.values import count, length


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1_000", 1000), ("10k", 10_000), ("2.5M", 2_500_000), ("3m", 3_000_000), ("1B", 10**9)],
)
def test_count(text, value) -> None:
    assert count(text) == value


@pytest.mark.parametrize(("text", "value"), [("512", 512), ("64k", 65_536), ("1M", 1_048_576), ("0.5k", 512)])
def test_length(text, value) -> None:
    assert length(text) == value


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "0.5", "1e6", "3 M", "3MB", "1.0001k", "٣", "nan", "9" * 30])
@pytest.mark.parametrize("read", [count, length])
def test_what_is_no_number(read, text) -> None:
    with pytest.raises(ArgumentTypeError, match="write for example"):
        read(text)
