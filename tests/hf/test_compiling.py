"""generate with a cache of declared length, whose steps are compiled."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch._dynamo
from torch import nn
from transformers import CompileConfig

import foveate
from foveate.errors import FoveateError
from hf.models import FAMILIES, greedy, make_ids, make_model, pad_left

STATIC = {"cache_implementation": "static", "do_sample": False}


@pytest.mark.parametrize("family", FAMILIES)
def test_static_is_a_cache_of_declared_length_with_the_same_text(family: str) -> None:
    model, ids = make_model(family), make_ids(2, 7)
    model.model.decoder.compiled_step = None
    out = model.generate(ids, max_new_tokens=40, return_dict_in_generate=True, **STATIC)
    assert torch.equal(out.sequences, greedy(model, ids, 40))
    cache = out.past_key_values
    assert cache.max_cache_len == cache.steps.max_length == 46
    model.generate(ids, max_new_tokens=60, **STATIC)
    again = model.generate(ids, max_new_tokens=10, return_dict_in_generate=True, **STATIC)
    assert again.past_key_values.max_cache_len == 66  # no new length to compile for


@pytest.mark.slow
@pytest.mark.parametrize(("family", "graphs"), [("hourglass", 2), ("retina", 2), ("attention", 2)])
def test_generate_compiles_a_step_for_each_pattern(family: str, graphs: int) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, ids = make_model(family), make_ids(2, 7)
    config = CompileConfig(backend="eager", fullgraph=True)
    for new in (40, 20):
        found = model.generate(ids, max_new_tokens=new, compile_config=config, **STATIC)
        assert torch.equal(found, greedy(model, ids, new))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    beams = {"num_beams": 2, "max_new_tokens": 20, "max_length": None, "do_sample": False}
    assert torch.equal(
        model.generate(ids, compile_config=config, cache_implementation="static", **beams), model.generate(ids, **beams)
    )
    rows = [make_ids(1, length)[0] for length in (9, 4)]
    padded, mask = pad_left(rows)
    out = model.generate(padded, attention_mask=mask, max_new_tokens=20, compile_config=config, **STATIC)
    for row, text in zip(rows, out, strict=True):
        assert torch.equal(text[-len(row) - 20 :], greedy(model, row[None], 20)[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
def test_a_step_of_the_inductor_is_the_plain_one() -> None:
    model, ids = make_model("hourglass", dtype=torch.float32), make_ids(2, 9)
    twin = foveate.compile_decoding(copy.deepcopy(model))
    with torch.inference_mode():
        cache, plain = twin.make_cache(2, max_length=32), model.make_cache(2)
        for part in ids.split([3, 1, 1, 1, 1, 1, 1], 1):
            found, expected = (m(part, past_key_values=c).logits for m, c in ((twin, cache), (model, plain)))
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert twin.model.decoder.compiled_step is not None
    assert model.model.decoder.compiled_step is None


def test_a_copy_of_a_compiled_model_has_steps_of_its_own() -> None:
    model = foveate.compile_decoding(make_model("plain"), backend="eager")
    step = model.model.decoder.compiled_step
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.model.decoder.compiled_step is not step
        assert twin.model.decoder.compiled_step.options == {"backend": "eager"}


def test_disable_compile_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = foveate.compile_decoding(make_model("hourglass"), backend="eager"), make_ids(1, 5)

    def compiled(*args: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr("foveate.model.steps.CompiledStep.__call__", compiled)
    assert torch.equal(model.generate(ids, max_new_tokens=6, disable_compile=True, **STATIC), greedy(model, ids, 6))
    with pytest.raises(AssertionError, match="compiled"):
        model.generate(ids, max_new_tokens=6, **STATIC)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"compile_config": CompileConfig()}, "pass cache_implementation='static' too"),
        ({"compile_config": CompileConfig(dynamic=True), **STATIC}, "dynamic=True"),
        ({"prompt_lookup_num_tokens": 2, **STATIC}, "assisted decoding"),
    ],
)
def test_what_steps_cannot_do_is_refused(how: dict, message: str) -> None:
    with pytest.raises(FoveateError, match=message):
        make_model("hourglass").generate(make_ids(1, 4), max_new_tokens=3, **how)


def test_a_given_cache_and_static_are_refused() -> None:
    model = make_model("hourglass")
    with pytest.raises(FoveateError, match="makes a cache, and one is given"):
        model.generate(make_ids(1, 4), past_key_values=model.make_cache(), max_new_tokens=3, **STATIC)


def test_other_models_are_refused() -> None:
    with pytest.raises(FoveateError, match="no multi-scale decoder"):
        foveate.compile_decoding(nn.Linear(2, 2))
