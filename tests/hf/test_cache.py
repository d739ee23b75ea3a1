"""What a cache can do besides being written: cut, reorder, copy, save, load."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor

from foveate import FoveateCache, FoveateForCausalLM
from foveate.errors import FoveateError
from hf.models import make_ids, make_model, pad_left


def read(model: FoveateForCausalLM, rows: list[Tensor]) -> FoveateCache:
    ids, mask = pad_left(rows)
    cache = model.make_cache(len(rows))
    with torch.no_grad():
        model(ids, attention_mask=mask, past_key_values=cache)
    return cache


def assert_goes_on(model: FoveateForCausalLM, cache: FoveateCache, rows: list[Tensor]) -> None:
    """The cache is that of these rows, read whole."""
    new = make_ids(len(rows), 9, seed=7)
    with torch.no_grad():
        out = torch.cat([model(part, past_key_values=cache).logits for part in new.split([1, 8], 1)], 1)
        for row, ids, logits in zip(rows, new, out, strict=True):
            expected = model(torch.cat((row, ids))[None]).logits[0, len(row) :]
            torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)


ROWS = [make_ids(n, seed=n) for n in (21, 3, 14)]


def test_rows_are_reordered_repeated_and_selected(model: FoveateForCausalLM) -> None:
    cache = read(model, ROWS)
    cache.reorder_cache(torch.tensor([2, 0, 1]))
    assert_goes_on(model, copy.deepcopy(cache), [ROWS[2], ROWS[0], ROWS[1]])
    cache.batch_repeat_interleave(2)
    assert cache.batch_size == 6
    cache.batch_select_indices(torch.tensor([0, 5, 2]))
    assert_goes_on(model, copy.deepcopy(cache), [ROWS[2], ROWS[1], ROWS[0]])
    cache.batch_select_indices(torch.tensor([True, False, True]))
    assert_goes_on(model, cache, [ROWS[2], ROWS[0]])


def test_crop_takes_tokens_back(model: FoveateForCausalLM) -> None:
    cache = read(model, ROWS)
    cache.record_past(12)
    new = make_ids(3, 12, seed=4)
    with torch.no_grad():
        model(new, past_key_values=cache)
    cache.crop(-11)
    assert_goes_on(model, cache, [torch.cat((row, ids[:1])) for row, ids in zip(ROWS, new, strict=True)])


def test_crop_refuses_what_would_be_wrong() -> None:
    cache = read(make_model("window"), ROWS)
    with pytest.raises(FoveateError, match="pass a negative number"):
        cache.crop(5)
    with pytest.raises(FoveateError, match="only the last 3 columns"):
        cache.crop(-4)
    with pytest.raises(FoveateError, match=r"call record_past\(2\)"):
        cache.crop(-2)


def test_save_and_load(model: FoveateForCausalLM, tmp_path: Path) -> None:
    cache = read(model, ROWS)
    path = tmp_path / "deep" / "cache.safetensors"
    cache.save(path, model)
    again = FoveateCache.load(path, model)
    assert (again.seen, again.batch_size) == (cache.seen, 3)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert_goes_on(model, again, ROWS)
    assert_goes_on(model, cache, ROWS)


def test_a_loaded_cache_can_be_cut_and_generated_from(model: FoveateForCausalLM, tmp_path: Path) -> None:
    document, ids = make_ids(1, 40), make_ids(1, 44)
    ids[:, :40] = document
    cache = model.make_cache()
    cache.record_past(6)
    model.read(document, cache)
    cache.save(tmp_path / "cache", model)
    cut = FoveateCache.load(tmp_path / "cache", model)
    cut.crop(-5)
    assert_goes_on(model, cut, [document[0, :35]])
    expected = model.generate(ids, max_new_tokens=8, do_sample=False, use_cache=False)
    loaded = FoveateCache.load(tmp_path / "cache", model)
    assert torch.equal(model.generate(ids, past_key_values=loaded, max_new_tokens=8, do_sample=False), expected)


def test_a_full_disk_is_a_line_and_leaves_the_cache_that_was_there(tmp_path: Path, monkeypatch) -> None:
    model = make_model("hourglass")
    path = tmp_path / "cache"
    read(model, ROWS).save(path, model)
    before = path.read_bytes()

    def full(tensors, file, metadata) -> None:
        Path(file).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("foveate.hf.state_file.save_file", full)
    with pytest.raises(FoveateError, match=f"no space left for the cache in {path}"):
        read(model, ROWS).save(path, model)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["cache"]


def test_an_empty_cache_is_saved_too(tmp_path: Path) -> None:
    model = make_model("hourglass")
    model.make_cache(2).save(tmp_path / "cache", model)
    assert_goes_on(model, FoveateCache.load(tmp_path / "cache", model), [make_ids(0), make_ids(0)])


def test_only_what_this_model_read_is_loaded(tmp_path: Path) -> None:
    model, other = make_model("hourglass"), make_model("hourglass", seed=1)
    path = tmp_path / "cache"
    read(model, ROWS).save(path, model)
    for stranger in (other, make_model("window"), make_model("hourglass", dtype=torch.float32)):
        with pytest.raises(FoveateError, match="another model"):
            FoveateCache.load(path, stranger)
    with pytest.raises(FoveateError, match="does not exist"):
        FoveateCache.load(tmp_path / "nothing", model)
    path.write_bytes(b"not a cache at all")
    with pytest.raises(FoveateError, match="not a saved cache"):
        FoveateCache.load(path, model)
    model.save_pretrained(tmp_path)
    with pytest.raises(FoveateError, match="not a saved cache"):
        FoveateCache.load(tmp_path / "model.safetensors", model)


def test_bytes_are_those_of_the_tapes(model: FoveateForCausalLM) -> None:
    cache = read(model, ROWS)
    assert cache.nbytes == sum(buffer.data.nbytes for buffer in cache.steps.buffers if not buffer.empty) > 0
    assert f"bytes={cache.nbytes}" in repr(cache)
