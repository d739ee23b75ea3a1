"""The ``foveate`` command. Each command is a module of this package, imported only when it is invoked.

A command module defines ``HELP`` (one line), ``EXAMPLES`` (shown under its help), ``add_arguments(parser)`` and
``run(args) -> int | None``. Importing it must not import torch: heavy imports belong inside ``run``.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

from foveate.errors import FoveateError

COMMANDS = (
    "train",
    "eval",
    "sample",
    "write",
    "convert",
    "info",
    "demo",
    "bench",
    "probe",
    "compare",
    "check",
    "export",
    "serve",
    "ask",
    "zoom",
    "app",
)

OK, INTERNAL_ERROR, USER_ERROR, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

DESCRIPTION = "Multi-scale language models: recent text sharp, distant text coarse."


class UsageError(FoveateError):
    """A command line that cannot be understood."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and which takes ``--debug`` at every depth of subcommands."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)
        # without a default: a subcommand's parser would otherwise overwrite what its parent has read
        self.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code: 0 done, 2 the user's mistake, 130 interrupted, 1 a bug."""
    words = list(sys.argv[1:] if argv is None else argv)
    # OpenMP's threads wait for each other in a busy loop: with any other program on the cores that stops small models.
    # It reads this once, when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter is no reason to fail
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse, after --help and --version
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except BrokenPipeError:
        # the reader, such as head, has gone: the interpreter's last flush must not complain about it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except BaseException as error:
        if "--debug" in words:
            traceback.print_exc()
        code, line = _explain(error)
        if isinstance(error, UsageError) and os.environ.get("RANK", "0") != "0":
            return code  # under torchrun process 0 says it
        print(f"foveate: {' '.join(line.split())}", file=sys.stderr)
        return code


def _run(words: list[str]) -> int:
    # no option that may come before the command takes a value, so the first plain word is the command
    name = next((word for word in words if not word.startswith("-")), None)
    if name is None:
        parser = _main_parser()
        parser.parse_args(words)
        parser.error("a command is missing")
    if name not in available_commands():
        close = difflib.get_close_matches(name, available_commands(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(available_commands())}"
        raise UsageError(f"{name!r} is not a command; {hint}")
    words = words.copy()
    words.remove(name)
    command = _load(name)
    parser = Parser(prog=f"foveate {name}", description=command.HELP, epilog=command.EXAMPLES)
    command.add_arguments(parser)
    return command.run(parser.parse_args(words)) or OK


def available_commands() -> tuple[str, ...]:
    """The names of the commands this installation has."""
    return tuple(name for name in COMMANDS if importlib.util.find_spec(f"foveate.cli.{name}"))


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"foveate.cli.{name}")


def _main_parser() -> Parser:
    from foveate import __version__

    names = available_commands()
    lines = [f"  {name:<{max(map(len, names))}}  {_load(name).HELP}" for name in names]
    parser = Parser(
        prog="foveate",
        usage="foveate COMMAND [options]",
        description=DESCRIPTION,
        epilog="\n".join(["commands:", *lines, "", "foveate COMMAND --help tells more about a command."]),
    )
    parser.add_argument("--version", action="version", version=f"foveate {__version__}")
    return parser


def _explain(error: BaseException) -> tuple[int, str]:
    """The exit code and the one line for whatever ended a command."""
    if isinstance(error, FoveateError):
        return USER_ERROR, str(error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if _is_out_of_memory(error):
        asked = re.search(r"allocate ([\d.]+ ?\w+)", str(error))
        wanted = f" (it asked for {asked[1]} more)" if asked else ""
        return USER_ERROR, f"out of memory{wanted}; choose a smaller batch, context or model"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return USER_ERROR, f"no space left on the disk{_where(error)}; free some or write elsewhere"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return USER_ERROR, f"{error.strerror}{_where(error)}"
    return INTERNAL_ERROR, f"internal error: {type(error).__name__}: {error}; run with --debug for the traceback"


def _where(error: OSError) -> str:
    return f": {error.filename}" if error.filename is not None else ""


def _is_out_of_memory(error: BaseException) -> bool:
    # torch is not imported here: its own class is known by name, its CPU allocator raises a plain RuntimeError
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
    )
