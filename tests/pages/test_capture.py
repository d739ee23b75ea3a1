"""What a token is said to see is what it sees: against the layers' own outputs, and against transformers' weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foveate.converting.conversion import from_llama
from foveate.pages.capture import given_by_last
from foveate.pages.lookback import GONE, NOT_YET, OPENED, capture, look_back
from foveate.pages.shelf import Shelf
from foveate.pages.texts import encode
from foveate.zooming import ZoomPlan
from pages.conftest import TEXT, WALKS


def read(shelf: Any, name: str, tokens: int) -> tuple[Any, list[int]]:
    reader = shelf.reader(name)
    return reader, encode(reader, TEXT, 1000).after_mark[:tokens]


@pytest.mark.parametrize("name", WALKS)
def test_weights_times_values_are_what_the_layer_puts_out(shelf: Any, name: str) -> None:
    reader, ids = read(shelf, name, 100)
    held = []
    hooks = [
        module.register_forward_hook(lambda module, args, out: held.append((module, args, out)))
        for module in reader.model.modules()
        if hasattr(module, "kind") and hasattr(module, "split")
    ]
    with torch.no_grad():
        reader.model(torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    seen = capture(reader, ids)
    assert len(held) == len(seen)
    for (module, (qkv, _, _), out), layer in zip(held, seen, strict=True):
        value_HSd = qkv[0, :, module.heads + module.kv_heads :].transpose(0, 1).repeat_interleave(2, 0)
        # a group's value is a mean of its units', with weights of its own, which are in those captured
        torch.testing.assert_close((layer.weights[..., None] * value_HSd).sum(1), out[0, -1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.weights.sum(1), torch.ones(4), rtol=1e-5, atol=1e-5)
        assert not layer.weights[(layer.size == 0).expand_as(layer.weights)].any(), "what is not seen has no weight"


def test_a_walk_of_a_llamas_weights_sees_what_the_llama_sees(shelf: Any) -> None:
    reader, ids = read(shelf, "llama", 60)
    reader.model.set_attn_implementation("eager")
    with torch.no_grad():
        wanted = reader.model(torch.tensor([ids]), output_attentions=True).attentions
    reader.model.set_attn_implementation("sdpa")
    walk = type(reader)(**{**vars(reader), "model": from_llama(reader.model).eval()})
    for found in (capture(reader, ids), capture(walk, ids)):
        assert len(found) == 2
        for layer, weights in zip(found, wanted, strict=True):
            torch.testing.assert_close(layer.weights, weights[0, :, -1], rtol=1e-4, atol=1e-6)
            assert layer.weights.std() > 1e-3, "weights that are not all alike"
    assert reader.model.config._attn_implementation == "sdpa"


def test_more_query_heads_to_a_key_than_channels(shelf: Any) -> None:
    """They are told apart by several passes."""
    from foveate.model.attention import FullAttention
    from foveate.model.clock import Units
    from foveate.model.rotary import Rotary
    from foveate.spec import Full, Level

    level = Level(stride=1, width=12, heads=6, kv_heads=1, feed_forward=8)
    heads = FullAttention(level, Full())
    qkv = torch.randn(1, 9, 8, level.head_dim)
    metadata = heads.prepare(Units(0, 9), None, None, Rotary(level.head_dim, 1e4), qkv, torch.float32)
    weights = given_by_last(heads, qkv, metadata, 0).weights
    out = heads(qkv, metadata, 0)[0, -1]
    torch.testing.assert_close(weights @ qkv[0, :, 7], out)


def test_sizes_and_masses_of_a_walk(shelf: Any) -> None:
    reader = shelf.reader("window")
    encoded = encode(reader, TEXT, 1000)
    found = look_back(capture(reader, encoded.after_mark[:31]), encoded, 29)
    assert [layer["ran"] for layer in found["layers"]] == [True, False, True], "31 tokens: no unit of 4 ends"
    assert [layer["stride"] for layer in found["layers"]] == [1, 4, 1]
    assert found["size"][:23] == [4] * 23
    assert set(found["size"][28:]) == {1}
    assert sum(found["mass"]) == pytest.approx(1, abs=1e-4)
    assert sum(group["mass"] for group in found["groups"]) == pytest.approx(1, abs=1e-4)
    keys = {group["size"]: group["keys"] for group in found["groups"]}
    assert keys == {1: pytest.approx(16 / 3, abs=1e-3), 4: pytest.approx(7 / 3, abs=1e-3)}
    fine = look_back(capture(reader, encoded.after_mark[:31]), encoded, 29, layer=0, head=1)
    assert fine["size"] == [GONE] * 23 + [1] * 8
    coarse = look_back(capture(reader, encoded.after_mark[:31]), encoded, 29, layer=1)
    assert coarse["size"] == [4] * 28 + [NOT_YET] * 3


def test_a_fovea_sees_ever_coarser_groups(shelf: Any) -> None:
    reader = shelf.reader("fovea")
    encoded = encode(reader, TEXT, 1000)
    found = look_back(capture(reader, encoded.after_mark[:121]), encoded, 119, layer=0)
    # unit 120 opens a block of 8: the one before is sharp, then 4 groups of 4, of 16, of 64 as far as there are units
    expected = [size for first, size in reader.spec.runs[0].attention.seen(120) for _ in range(size)]
    assert found["size"] == [GONE] * (121 - len(expected)) + expected
    assert set(expected) >= {1, 4, 16}


def test_before_the_first_unit_of_a_level(shelf: Any) -> None:
    reader = shelf.reader("hourglass")
    encoded = encode(reader, TEXT, 1000)
    found = look_back(capture(reader, encoded.after_mark[:2]), encoded, 0)
    assert [layer["mass"] for layer in found["layers"]] == [{"1": 1.0}, {}, {"1": 1.0}]
    alone = look_back(capture(reader, encoded.after_mark[:2]), encoded, 0, layer=1)
    assert (alone["size"], alone["groups"]) == ([NOT_YET] * 2, [])


def test_zoom_opens_some_groups_and_the_others_are_thumbnails(shelf: Any) -> None:
    """Against the slow reference: a head's groups, and the weights that its softmax gives them."""
    from foveate.zooming.reference import opened_keys

    reader, ids = read(shelf, "zoom", 100)
    held = []
    hooks = [
        module.register_forward_pre_hook(lambda module, args: held.append((module, *args)))
        for module in reader.model.modules()
        if hasattr(module, "zoom")
    ]
    seen = capture(reader, ids)
    for hook in hooks:
        hook.remove()
    plan = reader.spec.runs[0].attention.plan
    for (module, qkv, metadata, _), layer in zip(held, seen, strict=True):
        q, k, _ = (part[0].transpose(0, 1).double() for part in module.split(qkv, metadata))
        t = k.shape[1] - 1
        for head in range(2):
            read_so, thumbnails = opened_keys(q[2 * head : 2 * head + 2, t], k[head], t, plan, plan.opened, 8**-0.5)
            size = torch.zeros(t + 1, dtype=torch.long)
            size[read_so] = 1
            for group in thumbnails:
                size[group] = len(group)
                weights = layer.weights[2 * head, group]
                torch.testing.assert_close(weights, weights[:1].expand_as(weights), msg="a group is one key")
            assert layer.size[2 * head].tolist() == layer.size[2 * head + 1].tolist() == size.tolist()
            far = slice(plan.sinks, plan.sinks + plan.far(t))
            opened = torch.zeros(t + 1, dtype=torch.bool)
            opened[far] = size[far] == 1
            assert layer.opened is not None
            assert layer.opened[2 * head].tolist() == opened.tolist()
            assert {1, 4, 8} <= set(size.tolist()), "near or opened, and thumbnails of two sizes"
        assert not layer.weights[layer.size == 0].any()


def test_what_zoom_has_opened_is_told_apart(shelf: Any) -> None:
    reader = shelf.reader("zoom")
    encoded = encode(reader, TEXT, 1000)
    found = look_back(capture(reader, encoded.after_mark[:100]), encoded, 98, layer=0, head=0)
    assert found["size"][:2] == [1, 1], "sinks"
    assert {1, 4, 8, OPENED} <= set(found["size"])
    assert found["size"].count(OPENED) == found["tokens"][str(OPENED)] == 3 * 4, "groups of four"
    keys = {group["size"]: group["keys"] for group in found["groups"]}
    assert keys[OPENED] == 12
    assert keys[4] == found["size"].count(4) / 4
    assert sum(group["mass"] for group in found["groups"]) == pytest.approx(1, abs=1e-4)
    assert found["layers"][0]["mass"][str(OPENED)] > 0
    averaged = look_back(capture(reader, encoded.after_mark[:100]), encoded, 98)
    assert sum(averaged["mass"]) == pytest.approx(1, abs=1e-4)


def test_another_model_zooms_as_it_reads(shelf: Any) -> None:
    """While everything is opened it sees what it sees without; its outputs are those of its weights."""
    reader, ids = read(shelf, "llama", 100)
    every, plain = capture(reader, ids, ZoomPlan(near=8, opened=1000)), capture(reader, ids)
    for zoomed, layer in zip(every, plain, strict=True):
        torch.testing.assert_close(zoomed.weights, layer.weights, rtol=1e-4, atol=1e-6)
        assert zoomed.opened is not None
        assert zoomed.opened[:, 4:84].all()
        assert not zoomed.opened[:, 84:].any()
    few = capture(reader, ids, ZoomPlan(near=8, opened=2))
    assert few[1].opened is not None
    assert few[1].opened.sum(1).tolist() == [8, 8]
    assert set(few[1].size.unique().tolist()) == {1, 4}
    assert reader.model.config._attn_implementation == "sdpa", "and attends as before"


@pytest.mark.parametrize(("name", "plan"), [("zoom", None), ("hourglass", None), ("llama", ZoomPlan(near=8, opened=2))])
def test_in_bf16_it_is_the_same_to_rounding(shelf: Any, folder: Any, name: str, plan: Any) -> None:
    reader, ids = read(shelf, name, 100)
    rounded = Shelf([folder / name], device="cpu", dtype="bf16").reader(name)
    assert rounded.model.dtype == torch.bfloat16
    layer, other = capture(reader, ids, plan)[0], capture(rounded, ids, plan)[0]
    assert other.weights.dtype == torch.float32
    assert (layer.weights - other.weights).abs().mean() < 2e-3
