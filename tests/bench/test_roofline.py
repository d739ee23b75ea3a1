"""What a token must read, and how fast this machine reads."""

from __future__ import annotations

import pytest
import torch

from foveate.bench import roofline
from foveate.bench.roofline import Bandwidth, MatmulPeak, bytes_read, firings
from foveate.spec import HierarchySpec


def spec(walk: str, **options) -> HierarchySpec:
    return HierarchySpec.parse(walk, width=16, heads=2, feed_forward=32, **options)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([8], {1: 1.0, 4: 0.25}),
        ([9], {1: 1.0, 4: 0.25}),
        ([8, 8], {1: 1.0, 4: 0.25}),  # together
        ([8, 9], {1: 1.0, 4: 0.5}),  # never together
        ([8, 9, 10, 11, 12], {1: 1.0, 4: 1.0}),
    ],
)
def test_a_layer_is_called_once_for_all_rows_that_fire_together(lengths, expected) -> None:
    assert firings(spec("1@1 1@4 1@1"), lengths, 8) == expected


def test_a_plain_token_reads_all_weights_and_all_keys_and_values() -> None:
    layer = 4 * 16 * 16 + 3 * 16 * 32 + 2 * 16
    weights = 2 * layer + 50 * 16 + 16
    assert bytes_read(spec("2@1"), [100], 1, 50, "float32") == 4 * (weights + 2 * 2 * 16 * 100)
    assert bytes_read(spec("2@1"), [100, 100], 1, 50, "bfloat16") == 2 * (weights + 2 * 2 * 2 * 16 * 100)


def test_a_layer_of_stride_k_reads_a_kth() -> None:
    without, coarse = (bytes_read(spec(walk), [256], 16, 50, "float32") for walk in ("1@1 1@16 1@1", "1@1 9@16 1@1"))
    layer = 4 * 16 * 16 + 3 * 16 * 32 + 2 * 16
    assert coarse - without == pytest.approx(4 * 8 * (layer + 2 * 16 * 16) / 16)


def test_windows_and_foveas_read_a_bounded_state() -> None:
    for walk in ("2@1:window8", "2@1:fovea4,groups=4,scales=2/4,tail=log"):
        near, far = (bytes_read(spec(walk), [length], 1, 50, "float32") for length in (1 << 8, 1 << 16))
        assert far < 1.2 * near


def test_attention_that_expands_reads_every_unit() -> None:
    linear, attention = (
        bytes_read(spec("1@1 1@4 1@1", expanding=kind), [400], 4, 50, "float32") for kind in ("linear", "attention")
    )
    assert attention - linear > 4 * 2 * 16 * 100


def test_the_machine_is_measured(monkeypatch) -> None:
    monkeypatch.setattr(roofline, "CPU_BYTES", 1 << 16)
    monkeypatch.setitem(roofline.PEAK_SIZE, "cpu", 32)
    cpu = torch.device("cpu")
    assert Bandwidth(spec("1@1").levels[0], torch.float32, cpu).measure() > 0
    assert MatmulPeak(torch.float32, cpu).measure() > 0
