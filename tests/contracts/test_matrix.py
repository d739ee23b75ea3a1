"""The nine points of the contract, and what a cache can do, on every listed walk."""

import pytest
import torch

from contracts.checks import (
    check_append_rows,
    check_calls,
    check_causal,
    check_clock,
    check_copy,
    check_gradients,
    check_oracle,
    check_packed,
    check_remove_last,
    check_rings,
    check_take_rows,
    make_decoder,
)
from contracts.walks import WALKS, small, whole_length
from foveate.model.decoder import Decoder


@pytest.fixture(scope="module", params=WALKS)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return make_decoder(WALKS[request.param])


def test_causal(decoder: Decoder) -> None:
    check_causal(decoder, whole_length(decoder.spec))


def test_split_in_two(decoder: Decoder) -> None:
    length = whole_length(decoder.spec)
    for first in range(1, length, 1 if length < 50 else 5):  # at every offset, or at each within every group in turn
        check_calls(decoder, [[first] * 2, [length - first] * 2])


@pytest.mark.parametrize("step", [1, 3])
def test_split_into_equal_calls(decoder: Decoder, step: int) -> None:
    check_calls(decoder, [[step] * 2] * (whole_length(decoder.spec) // step))


def test_split_in_single_precision(decoder: Decoder) -> None:
    single = make_decoder(decoder.spec, dtype=torch.float32)
    length = whole_length(decoder.spec)
    check_calls(single, [[length // 3] * 2, *[[1] * 2] * 7, [length - length // 3] * 2], tolerance=1e-5)


def test_rows_of_unequal_lengths(decoder: Decoder) -> None:
    length = whole_length(decoder.spec)
    check_calls(decoder, [[length, 1, length // 2, 0, length - 1]], cached=False, extra_columns=2)
    check_calls(decoder, [[3, 0, 1, 0], [length, 2, length // 2, 1], [1, 1, 1, 1], [0, 5, 0, 2], [7, 7, 7, 7]])


def test_rows_of_unequal_lengths_token_by_token(decoder: Decoder) -> None:
    length = min(whole_length(decoder.spec), 24)
    check_calls(decoder, [[2, length // 2, 5], *[[1, 1, 1]] * length, *[[0, 1, 0], [1, 0, 1]] * 3])


def test_rows_at_their_own_speed(decoder: Decoder) -> None:
    check_calls(decoder, [[15, 15], [1, 0], [1, 0], [0, 1], [0, 1], *[[1, 1]] * 12], extra_columns=1)
    check_calls(decoder, [[1], [1], [1], *[[1]] * 9, [7]], extra_columns=1)
    length = whole_length(decoder.spec)
    check_calls(decoder, [[length, length - 3, 2], [0, 3, 5], [1, 0, 0], [1, 1, 1], [0, 0, length], [1, 1, 1]])


def test_gradients_survive_the_cache(decoder: Decoder) -> None:
    length = whole_length(decoder.spec)
    check_gradients(decoder, [[length // 2] * 2, [1] * 2, [1] * 2, [length // 3] * 2, [1] * 2])
    check_gradients(decoder, [[7, 3], [1, 1], [0, 4], [9, length // 2], [1, 1], [2, 5]])


def test_packed_documents(decoder: Decoder) -> None:
    length = whole_length(decoder.spec)
    check_packed(decoder, [[5, 1, length, 3], [length, 9], [length + 9]])
    check_packed(decoder, [[1, 1, 1]])


def test_on_the_clock(decoder: Decoder) -> None:
    length = whole_length(decoder.spec)
    check_clock(decoder, [[1] * 2] * length)
    check_clock(decoder, [[length // 2] * 2, [length] * 2])
    check_clock(decoder, [[3, length // 2, 0, 7], *[[1, 1, 1, 1]] * 9, [2, 0, 5, 1]])


def test_equals_the_oracle(decoder: Decoder) -> None:
    gradients = check_oracle(decoder, [whole_length(decoder.spec)])
    assert all(gradient.any() for gradient in gradients), "a parameter without effect is not tested"


def test_rows_of_unequal_lengths_equal_the_oracle(decoder: Decoder) -> None:
    check_oracle(decoder, [13, 2, 7])


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_any_length(decoder: Decoder, length: int) -> None:
    check_oracle(decoder, [length])
    check_calls(decoder, [[length]])


def test_slots_are_asked_for_before_they_are_written(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.model.buffer.RESERVE", 1)  # room to spare would hide a tape that asks for too little
    length = whole_length(decoder.spec)
    check_calls(decoder, [[length - 3] * 2, *[[1] * 2] * 9])
    check_calls(decoder, [[length - 3, 3], *[[1, 1]] * 9])


def test_take_rows(decoder: Decoder) -> None:
    after = [[1, 1, 1, 1], [4, 2, 0, 9]]
    check_take_rows(decoder, [6, 11, 3], [2, 0, 0, 1], after)
    check_take_rows(decoder, [7, 7, 7], [1, 1, 0, 2], after)
    check_take_rows(decoder, [6, 11, 3], [1], [[1], [5], [1]])


def test_append_rows(decoder: Decoder) -> None:
    length = whole_length(decoder.spec)
    check_append_rows(decoder, [[7], [7]], [[1, 1], [4, 4], [1, 1]])
    check_append_rows(decoder, [[length], [3, 0], [length // 2]], [[1, 1, 1, 1], [5, 0, 2, 9], [1, 1, 1, 1]])
    check_append_rows(decoder, [[0], [length + 70]], [[1, 1], [1, 1], [length, 2]])
    check_append_rows(decoder, [[9], [length], [2]], [[3, 3, 3]], recorded=[3, 0, 9])


@pytest.mark.parametrize("lengths", [[9, 9], [17, 2, 8]])
def test_remove_last(decoder: Decoder, lengths: list[int]) -> None:
    check_remove_last(decoder, lengths, [(5, 3), (5, 5), (1, 0), (6, 2), (2, 4), (9, 5), (1, 1), (12, 5), (1, 0)])


def test_copy(decoder: Decoder) -> None:
    check_copy(decoder, [9, 4], [[1, 1], [5, 3], [1, 1]])


def test_rings_stay_as_large_as_needed(decoder: Decoder) -> None:
    check_rings(decoder, [[5, 5], [1, 1], [23, 23], [1, 1]])
    check_rings(decoder, [[2, 30, 5], [1, 1, 1], [30, 0, 1], [1, 1, 1]])


def test_decoding_640_tokens_runs_coarse_layers_once_per_unit() -> None:
    decoder = make_decoder(small("2@1 4@4 8@16 4@4 2@1"), dtype=torch.float32)
    assert check_clock(decoder, [[1]] * 640) == {1: 640, 4: 160, 16: 40}


@pytest.mark.parametrize("name", ["nested", "windows", "attention_attention"])
def test_half_precision_stays_near_double(name: str) -> None:
    double, half = make_decoder(WALKS[name]), make_decoder(WALKS[name], dtype=torch.bfloat16)
    x = torch.randn(2, 40, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    cache = half.make_cache(2)
    with torch.no_grad():
        calls = [half(part.bfloat16(), cache) for part in x.split([17, 1, 1, 5, 16], 1)]
        assert all(out.dtype == torch.bfloat16 for out in calls)
        error = (torch.cat(calls, 1).double() - double(x)).square().mean().sqrt()
    assert error < 0.1
