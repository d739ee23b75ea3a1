"""The frame of the command line: which command runs, and what becomes of its errors."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

import foveate
from foveate import cli
from foveate.errors import FoveateError


@pytest.fixture
def command(monkeypatch):
    """A command ``fake`` with a subcommand, which raises ``fake.error`` or returns ``fake.code``."""
    fake = ModuleType("foveate.cli.fake")
    fake.__spec__ = ModuleSpec(fake.__name__, None)
    fake.HELP, fake.EXAMPLES, fake.error, fake.code = "pretends", "examples:\n  foveate fake sub --size 3", None, None

    def add_arguments(parser) -> None:
        sub = parser.add_subparsers(dest="what", required=True).add_parser("sub")
        sub.add_argument("--size", type=int)

    def run(args):
        fake.args = args
        if fake.error:
            raise fake.error
        return fake.code

    fake.add_arguments, fake.run = add_arguments, run
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(cli, "COMMANDS", ("info", "fake", "absent"))
    return fake


def test_help_lists_the_commands_there_are(command, capsys) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "  fake  pretends" in out
    assert "absent" not in out


def test_help_of_a_command_ends_with_its_examples(command, capsys) -> None:
    assert cli.main(["fake", "--help"]) == 0
    assert capsys.readouterr().out.endswith("examples:\n  foveate fake sub --size 3\n")


def test_version(capsys) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"foveate {foveate.__version__}\n"


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_the_commands(command, code) -> None:
    command.code = code
    assert cli.main(["fake", "sub", "--size", "3"]) == code
    assert command.args.size == 3


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "a command is missing; see foveate --help"),
        (["--loud"], "unrecognized arguments: --loud; see foveate --help"),
        (["inof"], "'inof' is not a command; did you mean info?"),
        (["absent"], "'absent' is not a command; choose one of info, fake"),
        (["fake"], "the following arguments are required: what; see foveate fake --help"),
        (["fake", "sub", "--size", "x"], "argument --size: invalid int value: 'x'; see foveate fake sub --help"),
        (["fake", "sub", "--siz", "3"], "unrecognized arguments: --siz 3; see foveate fake --help"),
    ],
)
def test_a_usage_error_is_one_line(command, capsys, words, line) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"foveate: {line}\n")


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (FoveateError("walk is empty;\n  write one"), 2, "walk is empty; write one"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError("Unable to allocate 7.28 TiB for an array"), 2, "out of memory (it asked for 7.28 TiB more)"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), 2, "(it asked for 2.00 GiB more)"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes."),
            2,
            "out of memory (it asked for 64 bytes more); choose a smaller batch, context or model",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 2, "out of memory; choose"),
        (OSError(errno.ENOSPC, "No space left on device", "run/x"), 2, "no space left on the disk: run/x; free"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 2, "Permission denied: /x/y"),
        (
            KeyError("weights"),
            1,
            "internal error: KeyError: 'weights'; run with --debug for the traceback",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_one_line_and_a_code(command, capsys, error, code, line) -> None:
    command.error = error
    assert cli.main(["fake", "sub"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("foveate: ")
    assert line in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [["--debug", "fake", "sub"], ["fake", "--debug", "sub"], ["fake", "sub", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(command, capsys, words) -> None:
    command.error = FoveateError("wrong")
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("\nfoveate: wrong\n")
    assert command.args.debug is True


def test_only_the_invoked_commands_module_is_imported() -> None:
    code = (
        "import sys; from foveate.cli import main; main(['info', '--walk', '1@1', '--json'])\n"
        "print(sorted(name for name in sys.modules if name.startswith('foveate.cli.')))"
    )
    last = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()[
        -1
    ]
    assert last == "['foveate.cli.info', 'foveate.cli.shape']"


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "foveate", "info", "--walk", "12@1", "--json"], stdout=pipe, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (cli.BROKEN_PIPE, b"")


def test_a_terminal_without_unicode_still_gets_its_answer() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "foveate", "info", "--walk", "2@1 3@4:window8 2@1"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"4x       =========\n" in done.stdout
