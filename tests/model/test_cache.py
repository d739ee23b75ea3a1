import numpy as np
import pytest
import torch

from contracts.checks import EXACT, assert_same, make_decoder, make_rows, read
from contracts.walks import WALKS, small
from foveate.errors import FoveateError
from foveate.model.buffer import Buffer
from foveate.model.cache import StepCache
from foveate.model.slots import Slots


def test_lengths_are_one_number_while_rows_are_alike() -> None:
    cache = StepCache([], 3)
    cache.advance(4)
    assert cache.lengths == 4
    cache.advance(np.array([1, 0, 2]))
    assert np.array_equal(cache.lengths, [5, 4, 6])
    assert cache.longest == 6
    cache.advance(np.array([1, 2, 0]))
    assert cache.lengths == 6
    assert isinstance(cache.lengths, int)


def test_taking_rows_takes_their_lengths() -> None:
    cache = StepCache([], 3)
    cache.advance(np.array([5, 4, 6]))
    cache.take_rows(torch.tensor([2, 0]))
    assert np.array_equal(cache.lengths, [6, 5])
    cache.take_rows(torch.tensor([1, 1, 1, 1]))
    assert (cache.lengths, cache.batch) == (5, 4)


@pytest.mark.parametrize("tokens", [-1, 4])
def test_more_than_a_row_has_cannot_be_removed(tokens: int) -> None:
    cache = StepCache([], 2)
    cache.advance(np.array([3, 9]))
    with pytest.raises(FoveateError, match=f"cannot remove {tokens} tokens .* has 3"):
        cache.remove_last(tokens)
    assert np.array_equal(cache.lengths, [3, 9])


@pytest.mark.parametrize("walk", ["1@1:window4", "1@1 1@4 1@1", "1@1:fovea4,groups=4,scales=2"])
def test_what_a_ring_has_overwritten_cannot_be_removed(walk: str) -> None:
    decoder = make_decoder(small(walk))
    cache = decoder.make_cache(1)
    x_TD = make_rows(decoder, [24])[0]
    with torch.no_grad():
        decoder(x_TD[None], cache)
        with pytest.raises(FoveateError, match=r"take 0 back; call record_past\(8\)"):
            cache.remove_last(8)
        cache.record_past(8)
        with pytest.raises(FoveateError, match="cannot remove 1 tokens"):
            cache.remove_last(1)
        assert cache.lengths == 24


@pytest.mark.parametrize("lengths", [[37, 37], [6, 52, 1]])
@pytest.mark.parametrize("name", ["windows", "nested", "fovea", "fovea_keep", "fovea_walk", "attention_attention"])
def test_rings_can_begin_to_remember_more_at_any_time(name: str, lengths: list[int]) -> None:
    decoder = make_decoder(WALKS[name])
    rows = make_rows(decoder, lengths)
    cache = decoder.make_cache(len(rows))
    with torch.no_grad():
        read(decoder, rows, [lengths], cache)
        rounds = [(2, 2, 2), (5, 5, 3), (5, 1, 1), (9, 4, 4), (40, 38, 38), (41, 2, 1), (90, 3, 0)]
        for slack, n_read, n_removed in rounds:
            cache.record_past(slack)
            new = make_rows(decoder, [n_read] * len(rows), seed=slack)
            features = read(decoder, new, [[n_read] * len(rows)], cache)
            for i, row in enumerate(rows):
                whole = decoder(torch.cat((row, new[i]))[None])[0]
                assert_same(features[i], whole[len(row) :], EXACT, f"row {i}, slack {slack}")
                rows[i] = torch.cat((row, new[i]))[: len(row) + n_read - n_removed]
            cache.remove_last(n_removed)


def test_a_full_walk_can_always_be_shortened() -> None:
    decoder = make_decoder(small("2@1"))
    cache = decoder.make_cache(1)
    x_TD = make_rows(decoder, [24])[0]
    with torch.no_grad():
        decoder(x_TD[None], cache)
        cache.remove_last(20)
        again = decoder(x_TD[None, 4:], cache)
        torch.testing.assert_close(again, decoder(x_TD[None])[:, 4:], atol=1e-10, rtol=0)


def test_bytes_follow_the_coarse_units() -> None:
    """Per token: 2·D for each run's layer, k times less on stride k; a group and a unit for the moves."""
    decoder = make_decoder(small("1@1 3@4:window8 1@1", width=8), dtype=torch.float32)
    cache = decoder.make_cache(2)
    with torch.no_grad():
        decoder(torch.randn(2, 200, 8), cache)
    full = [tape.capacity for tapes in (cache.steps[0], cache.steps[4]) for tape in tapes]
    assert all(200 <= capacity <= 320 for capacity in full)
    assert cache.nbytes == 4 * 2 * (sum(full) * 2 * 8 + 3 * 8 * 2 * 8 + 4 * 8 + 8)


@pytest.mark.parametrize("name", ["nested", "windows", "fovea", "fovea_keep", "attention_attention"])
def test_a_filled_cache_is_as_large_as_a_read_one_and_can_be_read_on(name: str) -> None:
    decoder = make_decoder(WALKS[name])
    used, filled = decoder.make_cache(2), decoder.make_cache(2)
    x_BTD = torch.stack(make_rows(decoder, [64, 64]))
    with torch.no_grad():
        decoder(x_BTD, used)
        filled.fill(64, x_BTD.dtype, x_BTD.device)
        assert filled.nbytes == used.nbytes
        for cache in (used, filled):
            assert decoder(x_BTD[:, :1], cache).isfinite().all()
            assert cache.lengths == 65


def test_reset_forgets() -> None:
    decoder = make_decoder(small("1@1:window3 1@4 1@1"))
    cache = decoder.make_cache(1)
    x_BTD = make_rows(decoder, [9])[0][None]
    with torch.no_grad():
        decoder(x_BTD, cache)
        cache.reset()
        assert (cache.lengths, cache.nbytes) == (0, 0)
        torch.testing.assert_close(decoder(x_BTD, cache), decoder(x_BTD), atol=1e-10, rtol=0)


def test_rows_of_another_model_are_not_joined() -> None:
    decoder, other = (make_decoder(small(walk)) for walk in ("1@1:fovea4,groups=4,scales=2", "1@1:fovea4,groups=4"))
    with pytest.raises(FoveateError, match="the same model"):
        decoder.make_cache(1).append_rows(other.make_cache(1))


def test_a_cache_of_another_batch_is_refused() -> None:
    decoder = make_decoder(small("1@1"))
    with pytest.raises(FoveateError, match="the cache holds 3 rows and the batch 1"):
        decoder(make_rows(decoder, [4])[0][None], decoder.make_cache(3))


def test_a_cache_that_a_failed_call_left_half_written_is_refused(monkeypatch) -> None:
    decoder = make_decoder(small("1@1:window4 1@1"))
    cache = decoder.make_cache(1)
    x = torch.randn(1, 14, 8, dtype=torch.float64)
    decoder(x[:, :7], cache)

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(decoder.steps[1], "forward", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            decoder(x[:, 7:], cache)
    with pytest.raises(FoveateError, match="half written"):
        decoder(x[:, 7:], cache)
    cache.reset()
    assert torch.equal(decoder(x[:, :7], cache), decoder(x[:, :7]))


def window_cache(slack: int) -> StepCache:
    """The bookkeeping of a window of 4 alone."""
    cache = StepCache([(Buffer(stride=1, width=2, slots=Slots(keep=4)),)], 1)
    cache.record_past(slack)
    return cache


def test_a_cut_and_a_step_on_do_not_bring_back_what_was_overwritten() -> None:
    cache = window_cache(8)  # a ring of 13: after 24 tokens it has those from 11 on
    cache.advance(24)
    cache.remove_last(8)
    cache.advance(2)
    cache.remove_last(4)  # 14 left, of which the last three are needed: 11, 12, 13
    with pytest.raises(FoveateError, match="cannot remove 1 tokens"):
        cache.remove_last(1)
    assert cache.lengths == 14


def test_a_joined_row_keeps_how_far_it_has_been() -> None:
    cache, other = window_cache(8), window_cache(8)
    for each in (cache, other):
        each.advance(24)
        each.remove_last(8)
    cache.append_rows(other)
    with pytest.raises(FoveateError, match="cannot remove 3 tokens"):
        cache.remove_last(3)


def test_less_to_remember_changes_nothing() -> None:
    cache = window_cache(8)
    cache.record_past(4)
    assert cache.slack == 8


def test_a_cache_that_is_reset_forgets_what_rings_had_overwritten() -> None:
    cache = StepCache([(Buffer(stride=1, width=2, slots=Slots(keep=4)),)], 1)
    cache.advance(24)
    cache.record_past(8)
    cache.reset()
    cache.advance(6)
    cache.remove_last(3)
    assert cache.lengths == 3


def test_slack_is_counted_in_whole_units_and_the_next() -> None:
    buffer = Buffer(stride=4, width=2, slots=Slots(keep=4))
    buffer.set_slack(5, 0)  # five tokens end two units of four at most
    assert buffer.slots.slack == 3


def test_what_was_lost_before_a_cut_is_not_found_by_remembering_more() -> None:
    cache = window_cache(8)
    cache.advance(24)  # units 11 to 23 are there
    cache.remove_last(8)
    cache.record_past(12)
    for tokens in (6, 7):  # of which 7, 8 and 9 are not
        with pytest.raises(FoveateError, match=f"cannot remove {tokens} tokens"):
            cache.remove_last(tokens)
    cache.advance(2)
    cache.remove_last(2)
    assert cache.lengths == 16


def test_rows_that_are_taken_keep_what_their_own_rings_had_lost() -> None:
    cache = StepCache([(Buffer(stride=1, width=2, slots=Slots(keep=4)),)], 3)
    cache.advance(np.array([24, 6, 6]))
    cache.record_past(8)
    cache.take_rows(torch.tensor([1, 2]))
    cache.advance(4)
    cache.remove_last(4)
    assert cache.lengths == 6
    with pytest.raises(FoveateError, match="cannot remove 1 tokens"):
        cache.remove_last(1)
