"""Zoom's rivals: exact where they may read everything, and reading what they say where they may not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXPERIMENTS = Path(__file__).parents[2] / "experiments" / "zoom"


@pytest.fixture
def rivals(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import rivals

    yield rivals
    for name in ("rivals", "perplexity", "needles"):
        sys.modules.pop(name, None)


def texts(tokens: int = 90) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [2 * torch.randn(1, heads, tokens, 8, dtype=torch.float64) for heads in (4, 2, 2)]


def outputs(rivals: ModuleType, **settings) -> torch.Tensor:
    q, k, v = texts()
    if settings["kind"] == "hitters":
        return rivals.hitters(q, k, v, 0.3, settings)
    return rivals.chosen(q, k, v, 0.3, settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "window", "sinks": 4, "window": 90},
        {"kind": "pages", "sinks": 4, "near": 8, "size": 4, "opened": 99},
        {"kind": "hitters", "sinks": 4, "budget": 120},
    ],
)
def test_a_rival_that_may_read_all_is_full_attention(rivals, settings) -> None:
    full = outputs(rivals, kind="full")
    torch.testing.assert_close(outputs(rivals, **settings), full, rtol=0, atol=1e-9)
    few = {**settings, "window": 12, "opened": 1, "budget": 32}
    assert (outputs(rivals, **few) - full).abs().max() > 0.1


def test_pages_open_the_page_of_the_one_key_that_matters(rivals) -> None:
    q, k, v = (x.clone() for x in texts())
    k.zero_()
    q[..., -1, :] = 5.0
    k[..., 30, :] = 5.0
    settings = {"kind": "pages", "sinks": 4, "near": 8, "size": 4, "opened": 1}
    out = rivals.chosen(q, k, v, 0.3, settings)[0, :, -1]
    torch.testing.assert_close(out, v[0, :, 30].repeat_interleave(2, 0), rtol=0, atol=1e-6)


def test_a_heavy_hitter_stays_and_what_is_evicted_is_gone(rivals) -> None:
    q, k, v = (x.clone() for x in texts(200))
    q[:] = 1.0
    k.zero_()
    k[..., 20, :] = 2.0  # most attention of every query so far
    settings = {"kind": "hitters", "sinks": 4, "budget": 40}
    k[..., 30, 0] = -9.0
    q[..., -1, :] = 0.0
    q[..., -1, 0] = -9.0  # the last query alone looks for 30
    out = rivals.hitters(q, k, v, 1.0, settings)[0]
    torch.testing.assert_close(out[:, -2], v[0, :, 20].repeat_interleave(2, 0), rtol=0, atol=1e-4)
    assert (out[:, -1] - v[0, :, 30].repeat_interleave(2, 0)).abs().max() > 0.1


def test_the_methods_are_valid_and_their_counts_are_those_of_their_names(rivals) -> None:
    methods = rivals.read_methods(str(EXPERIMENTS / "methods.yaml"), None)
    for name, settings in methods.items():
        counts = [rivals.reads(settings, position)[0] for position in range(4096, 8192)]
        if name.endswith("256"):
            assert abs(sum(counts) / len(counts) - 256) < 6
    with pytest.raises(SystemExit, match="has no 'nothing'"):
        rivals.read_methods(str(EXPERIMENTS / "methods.yaml"), ["nothing"])


def test_a_needle_lies_at_its_depth_and_the_answer_is_last(rivals) -> None:
    import needles

    class Letters:
        def __call__(self, text, add_special_tokens):
            return {"input_ids": [ord(letter) for letter in text]}

    for task in needles.TASKS:
        ids, answer = needles.example(Letters(), [1] * 2000, task, 0.25, 0)
        text = "".join(map(chr, ids))
        number = text[-answer:].strip()
        assert len(ids) == 2000
        assert len(number) == needles.DIGITS
        place = text.index(number)
        assert 0.2 < place / 2000 < 0.45
        assert text.count(number) == 2
