"""The Portuguese README says what the program takes."""

from __future__ import annotations

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from foveate.cli import Parser, available_commands
from foveate.presets import resolve_walk

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.pt.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^foveate (.+?)(?:  +#.*)?$", TEXT, re.M)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line: str) -> None:
    name, *words = shlex.split(line)
    assert name in available_commands()
    parser = Parser(prog=name)
    import_module(f"foveate.cli.{name}").add_arguments(parser)
    assert isinstance(parser.parse_args(words), argparse.Namespace)


def test_commands_links_and_walks_are_there() -> None:
    assert len(COMMANDS) > 10
    for target in re.findall(r"^make (\w+)", TEXT, re.M):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
    for path in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / path).exists()
    for walk, preset in re.findall(r"\| `([^`]+)` \| `(\S+)` \|$", TEXT, re.M):
        assert resolve_walk(preset) == resolve_walk(walk)
    example = re.search(r"```python\n(.+?)```", TEXT, re.S)
    assert example is not None
    exec(example[1], {})


def test_the_two_readmes_know_each_other() -> None:
    assert "(README.pt.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
