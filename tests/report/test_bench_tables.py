"""Tables of benchmarks: every row is there, and a ratio's other side is its inverse."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from foveate.report.bench_tables import decode_table

SETUP = {"ragged": False, "device": "cpu", "threads": 1, "repeats": 5, "against": "8@1", "batch": 2, "dtype": "fp32"}
UNKNOWN = dict.fromkeys(("read_bytes", "roofline_ms", "over_roofline", "prefill_tokens_per_s", "predicted"))


def record(walk: str, ms: float, ratio: float | None) -> dict:
    times = {"ms_per_token": ms, "ms_low": ms - 0.5, "ms_high": ms + 0.5, "tokens_per_s": 2000 / ms}
    ratios = {"ratio": ratio, "ratio_low": ratio and ratio - 0.125, "ratio_high": ratio and ratio + 0.125}
    return (
        SETUP | UNKNOWN | {"walk": walk, "context": 4096, "state_bytes": 1 << 20, "weight_bytes": 1e6} | times | ratios
    )


def test_a_row_for_each_measurement() -> None:
    out = StringIO()
    Console(file=out, width=200).print(decode_table([record("8@1", 8.0, None), record("1@1 6@4 1@1", 2.0, 0.25)]))
    title, _, head, _, plain, coarse, *_ = out.getvalue().splitlines()
    assert title == "decoding on cpu, 1 threads; median (low–high) of 5, ratios to 8@1 turn by turn"
    assert "roofline" not in head, "what nothing is known of is left out"
    assert plain.split()[:5] == ["8@1", "4,096", "2", "fp32", "8.00"]
    assert coarse.split()[:6] == ["1@1", "6@4", "1@1", "4,096", "2", "fp32"]
    assert "0.25 (0.12–0.38)" in coarse
    assert "4.00x" in coarse, "four times as fast"
