"""What is counted along the way: columns of a cache, positions that callers pass, offsets of packed rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foveate import FoveateCache
from foveate.errors import FoveateError
from foveate.hf.inputs import counts_on, refuse_unknown
from foveate.hf.phases import Phases, coarsest_stride
from foveate.spec import HierarchySpec
from hf.models import make_ids, make_model, pad_left

# caches


def test_a_cache_that_is_reset_has_seen_nothing() -> None:
    model = make_model("window")
    cache = model.read(make_ids(1, 20), model.make_cache())
    cache.activate_past_recording()
    cache.reset()
    assert (cache.seen, cache.unpadded, cache._since_crop) == (0, 0, 0)
    assert cache.get_mask_sizes(3) == (3, 0)


@pytest.mark.parametrize("family", ["window", "retina", "hourglass"])
def test_all_that_is_read_while_recording_can_be_taken_back(family: str) -> None:
    """Also what is read in several calls, and 64 tokens more."""
    model, ids = make_model(family), make_ids(1, 330)
    with torch.no_grad():
        cache = model.make_cache()
        cache.activate_past_recording()
        model(ids[:, :70], past_key_values=cache)
        cache.crop(0)
        for part in ids[:, 70:].split(26, 1):
            model(part, past_key_values=cache, logits_to_keep=part.shape[1])
        cache.crop(-(260 + 64))
        found = model(ids[:, 6:30], past_key_values=cache).logits
        torch.testing.assert_close(found, model(ids[:, :30]).logits[:, 6:], atol=1e-10, rtol=0)


def test_a_margin_is_kept_where_little_is_read() -> None:
    model, ids = make_model("window"), make_ids(1, 170)
    with torch.no_grad():
        cache = model.make_cache()
        cache.activate_past_recording()
        model(ids[:, :70], past_key_values=cache, logits_to_keep=70)
        cache.crop(0)
        model(ids[:, 70:], past_key_values=cache, logits_to_keep=100)
        cache.crop(-(100 + 64))
    assert cache.seen == 6


def test_who_asks_for_several_logits_may_take_as_many_back() -> None:
    model, ids = make_model("window"), make_ids(1, 200)
    with torch.no_grad():
        cache = model.make_cache()
        cache.activate_past_recording()
        cache.crop(0)
        slack = cache.steps.slack
        model(ids, past_key_values=cache, logits_to_keep=200)
        assert cache.steps.slack >= 200 + 64 > slack
        cache.crop(-199)
        found = model(ids[:, 1:], past_key_values=cache).logits
        torch.testing.assert_close(found, model(ids).logits[:, 1:], atol=1e-10, rtol=0)


def test_joined_rows_have_seen_as_many_columns_as_the_longer_ones() -> None:
    model = make_model("hourglass")
    caches = [model.read(make_ids(1, n), model.make_cache()) for n in (9, 21)]
    caches[0].append_rows(caches[1])
    assert (caches[0].get_seq_length(), caches[0].batch_size) == (21, 2)
    with pytest.raises(FoveateError, match="only the last 0 columns"):
        caches[0].crop(-1)


def test_a_loaded_cache_knows_where_its_padding_ends(tmp_path: Path) -> None:
    model = make_model("plain")
    ids, mask = pad_left([make_ids(n, seed=n) for n in (9, 4)])
    cache = model.make_cache(2)
    with torch.no_grad():
        model(ids, attention_mask=mask, past_key_values=cache)
    cache.save(tmp_path / "cache", model)
    loaded = FoveateCache.load(tmp_path / "cache", model)
    assert (loaded.seen, loaded.unpadded) == (9, 4)
    with pytest.raises(FoveateError, match="only the last 4 columns have no padding"):
        loaded.crop(-5)


def test_while_training_nobody_gets_a_cache_unasked() -> None:
    model = make_model("plain").train()
    assert model(make_ids(1, 5)).past_key_values is None
    assert model(make_ids(1, 5), use_cache=True).past_key_values.seen == 5
    assert model.eval()(make_ids(1, 5)).past_key_values.seen == 5


# positions


@pytest.mark.parametrize(
    ("positions", "mask", "lengths", "seen", "right"),
    [
        ([[5, 6, 7]], None, 5, 5, True),
        ([[0, 1, 2]], None, 5, 5, False),
        ([[0, 1, 2]], [[1, 1, 1]], 5, 5, False),
        ([[3, 4, 5], [5, 6, 7]], None, np.array([3, 5]), 9, True),
        ([[3, 4, 5], [3, 4, 5]], None, np.array([3, 5]), 9, False),
        ([[9, 10, 11]], None, np.array([3, 5]), 9, True),  # the batch's columns
        ([[0, 1, 2]], None, np.array([3, 5]), 9, False),
        ([[7, 3, 4], [5, 6, 7]], [[0, 1, 1], [1, 1, 1]], np.array([3, 5]), 9, True),  # any at padding
        ([[3, 4, 9], [5, 6, 7]], [[1, 1, 0], [1, 1, 1]], np.array([3, 5]), 9, True),
        ([[2, 3, 4], [5, 6, 7]], [[1, 1, 1], [1, 1, 1]], np.array([3, 5]), 9, False),
    ],
)
def test_positions_count_a_rows_tokens_or_the_columns(positions, mask, lengths, seen: int, right: bool) -> None:
    mask_BT = None if mask is None else torch.tensor(mask)
    assert counts_on(torch.tensor(positions), mask_BT, lengths, 3, seen) == right


def test_what_is_to_be_given_out_but_is_not_known_is_refused() -> None:
    def forward(input_ids: Any, output_hidden_states: Any = None) -> None: ...

    refuse_unknown({"output_router_logits": False, "use_cache": None, "labels": 1}, forward, "labels")
    with pytest.raises(FoveateError, match="output_router_logits is no argument"):
        refuse_unknown({"output_router_logits": True}, forward)


# phases


def test_rows_wait_in_the_phase_that_costs_least() -> None:
    """The one at 0 of 16 waits for nine steps: that those at 8 and 9 wait for it would be seventeen."""
    phases = Phases(np.array([0, 24, 9]), 16, 1000)
    assert phases.step().tolist() == [False, True, False]
    assert phases.step().tolist() == [False, True, True]


def test_the_rows_that_are_left_keep_their_places() -> None:
    phases = Phases(np.array([2, 4, 3, 3]), 8, 1000)
    assert phases.step().tolist() == [True, False, False, False]
    phases.keep(np.array([False, True, True, True]))
    assert phases.step().tolist() == [False, True, True]
    assert phases.step().tolist() == [True, True, True]


def test_nobody_waits_for_a_level_without_layers() -> None:
    assert coarsest_stride(HierarchySpec.parse("1@1 2@4 0@16 1@1", width=8, heads=2)) == 4
    assert coarsest_stride(HierarchySpec.parse("1@1 2@4 1@16 1@1", width=8, heads=2)) == 16


# packed rows

IDS = make_ids(2, 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cu_seq_lens_q": [0, 3, 8]}, "have every row's beginning"),
        ({"cu_seq_lens_q": [0, 4, 3, 8]}, "must rise from 0 to 8"),
        ({"cu_seq_lens_q": [0, 1, 4, 8], "max_length_q": 3}, "max_length_q is 3, less than the longest document"),
        ({"max_length_k": 3}, "max_length_k says nothing without cu_seq_lens_k"),
        ({"seq_idx": torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]])}, "the numbers of documents fall along a row"),
    ],
)
def test_offsets_and_numbers_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(FoveateError, match=message):
        make_model("plain")(IDS, use_cache=False, **given)


def test_the_longest_document_may_be_as_long_as_it_is_said_to_be() -> None:
    model = make_model("plain")
    packed = {"cu_seq_lens_q": [0, 1, 4, 8], "max_length_q": 4}
    with torch.no_grad():
        found = model(IDS, use_cache=False, **packed).logits
        expected = torch.cat([model(IDS[:1, :1]).logits, model(IDS[:1, 1:]).logits], 1)
    torch.testing.assert_close(found[:1], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("read", [1, 5])
def test_documents_follow_nothing(read: int) -> None:
    model = make_model("plain")
    cache = model.read(make_ids(2, read), model.make_cache(2))
    with pytest.raises(FoveateError, match=f"cannot follow the {read} columns"):
        model(IDS, past_key_values=cache, use_cache=None, attention_mask=torch.tensor([[1, 1, 2, 2], [1, 2, 2, 2]]))


@pytest.mark.parametrize("said", ["position_ids", "seq_idx"])
def test_padding_begins_no_document(said: str) -> None:
    """Of two rows that say so the second is one document, with padding before it and in it."""
    model = make_model("plain")
    ids, mask = make_ids(2, 6), torch.tensor([[1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 1, 1]])
    given = {
        "position_ids": torch.tensor([[0, 1, 0, 1, 2, 3], [0, 0, 1, 0, 2, 3]]),
        "seq_idx": torch.tensor([[0, 0, 1, 1, 1, 1], [3, 5, 5, 3, 5, 5]]),
    }
    with torch.no_grad():
        found = model(ids, attention_mask=mask, use_cache=False, **{said: given[said]}).logits[1, mask[1] == 1]
        alone = model(ids[1:, mask[1] == 1]).logits[0]
        torch.testing.assert_close(found, alone, atol=1e-10, rtol=0)
        row = {"attention_mask": mask[1:], said: given[said][1:]}
        assert model(ids[1:], **row).past_key_values.seen == 6, "one document alone can be gone on from"


def test_of_more_rows_than_a_chunk_has_columns_one_column_is_read_at_a_time(monkeypatch) -> None:
    model, told = make_model("plain"), []
    monkeypatch.setattr(model.model, "chunk", 2)
    model.read(make_ids(3, 4), model.make_cache(3), told.append)
    assert told == [1, 1, 1, 1]
