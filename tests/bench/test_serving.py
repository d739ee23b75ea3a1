"""What clients of a measured server get is counted, at once and one after another."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from foveate.bench import serving
from foveate.bench.clients import Clients, Turn
from foveate.cli import main
from foveate.errors import FoveateError

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("fastapi", "uvicorn"))), reason="needs foveate[serve]"
)

WORDS = ["--walk", "1@1 1@4 1@1", "--hidden", "16", "--heads", "2", "--vocab", "32", "--threads", "1"]
SMALL = [*WORDS, "--streams", "3", "--prompt", "6", "--tokens", "5", "--repeats", "2"]


def with_clients(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    """Clients that get what ``ask`` says, from nobody."""

    class Told(Clients):
        def __init__(self) -> None:
            pass

        def ask(self, bodies: Any, *, at_once: bool) -> Turn:
            return ask(bodies, at_once)

    @contextlib.contextmanager
    def clients(address: str) -> Iterator[Clients]:
        yield Told()

    monkeypatch.setattr(serving, "clients", clients)


def test_every_stream_is_written_whole_at_once_and_one_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "serve", *SMALL, "--json"]) == 0
    [found] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (found["streams"], found["prompt"], found["tokens"], found["repeats"]) == (3, 6, 5, 2)
    assert 0 < found["apart_low"] <= found["apart_per_s"] <= found["apart_high"]
    assert 0 < found["first_ms_apart"] < 1e3 * 15 / found["apart_low"]
    assert found["walk"] == "1@1 1@4 1@1"


def test_speeds_and_ratios_are_of_the_clients_clock(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter([2.0, 8.0, 4.0, 12.0])  # a turn at once, one apart, and again

    def ask(bodies: Any, at_once: bool) -> Turn:
        took = next(seconds) if len(bodies) == 3 else 1.0
        return Turn(tokens=[5] * len(bodies), first=[0.5 if at_once else 0.25] * len(bodies), seconds=took)

    with_clients(monkeypatch, ask)
    assert main(["bench", "serve", *SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["together_low"], found["together_high"]) == (15 / 4, 15 / 2)
    assert (found["apart_low"], found["apart_high"]) == (15 / 12, 15 / 8)
    assert (found["ratio_low"], found["ratio"], found["ratio_high"]) == (3, 3.5, 4)
    assert (found["first_ms"], found["first_ms_apart"]) == (500, 250)


def test_an_answer_that_ends_early_is_no_measurement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_clients(monkeypatch, lambda bodies, _: Turn(tokens=[4] * len(bodies), first=[0.1] * len(bodies), seconds=1.0))
    assert main(["bench", "serve", *SMALL]) == 2
    assert "answers of [4, 4, 4] tokens instead of 5" in capsys.readouterr().err


def test_clients_that_end_are_told_of_in_a_line() -> None:
    with pytest.raises(FoveateError, match="clients ended"):
        Clients(io.StringIO(), io.StringIO()).ask([], at_once=True)


def test_clients_load_nothing_heavy() -> None:
    code = "import sys, foveate.bench.clients; print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_more_streams_than_a_server_takes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "serve", *WORDS, "--streams", "1024"]) == 2
    assert "streams: 1,024 is too many" in capsys.readouterr().err
