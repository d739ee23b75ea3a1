from __future__ import annotations

import pytest

from foveate.train.display import Display, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.6, "1m00s"), (250, "4m10s"), (3600 * 3 + 301, "3h05m"), (86400 * 2 + 3600 * 4, "2d04h")],
)
def test_durations_are_short(seconds, text) -> None:
    assert duration(seconds) == text


def record(kind: str, step: int, **values: float) -> dict:
    return {"kind": kind, "step": step, **values}


def test_away_from_a_terminal_a_line_now_and_then(capsys) -> None:
    with Display(1000, 512) as display:
        for step in range(1, 51):
            display.on_step(step)
            display.on_record(record("train", step, loss=5.25, tokens_per_s=12_800.0))
        display.on_record(record("valid", 50, bpb=2.5, perplexity=321.0))
        display.on_record(record("sample", 50, prompt="The", text=" cat\nsat"))
        display.note("a note [with brackets]")
    output = capsys.readouterr()
    assert output.out == ""
    lines = [line for line in output.err.splitlines() if line]  # rich 13.0 ends with an empty one
    assert lines == [
        "step 1/1,000: loss 5.250  12.8k tokens/s  40s left",
        "step 50/1,000: validation 2.5000 bits per byte, perplexity 321",
        "step 50/1,000: The cat sat",
        "a note [with brackets]",
    ]


def test_on_a_terminal_a_bar(capsys, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    with Display(1000, 512) as display:
        display.on_step(7)
        display.on_record(record("train", 7, loss=5.25, tokens_per_s=800.0))
        display.bar.refresh()
    assert "step 7/1,000" in capsys.readouterr().err
