"""Steps of decoding at fixed addresses: right for every walk, and one graph for each pattern of levels due."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from torch import Tensor

from contracts.checks import make_decoder
from contracts.walks import STEPPED, WALKS, small, whole_length
from foveate.errors import FoveateError
from foveate.model.cache import StepCache
from foveate.model.steps import CompiledStep, Due
from foveate.spec import HierarchySpec

MORE = 20  # tokens decoded


class Uncompiled(CompiledStep):
    """The same step without a compiler, which notes the patterns it was asked for."""

    def __init__(self) -> None:
        super().__init__({})
        self.asked: set[Due] = set()

    def __call__(self, step: Any, *args: Any) -> Tensor:
        self.asked.add(args[-1])
        out: Tensor = step(*args)
        return out


def addresses(cache: StepCache) -> list[int]:
    return [part.data_ptr() for buffer in cache.buffers for layer in range(buffer.layers) for part in buffer[layer]]


def patterns(spec: HierarchySpec, lengths: range) -> int:
    """Distinct patterns over even steps, counted from the definition: which strides divide, which blocks begin."""
    found = set()
    for t in lengths:
        blocks = [(run.stride, run.attention.block) for run in spec.runs if hasattr(run.attention, "block")]
        found.add(
            (
                tuple((t + 1) % stride == 0 for stride in spec.strides),
                tuple((t + 1) % stride == 0 and t // stride % block == 0 for stride, block in blocks),
            )
        )
    return len(found)


@torch.no_grad()
@pytest.mark.parametrize("name", STEPPED)
def test_steps_are_right_and_nothing_moves(name: str) -> None:
    decoder = make_decoder(WALKS[name])
    longest = whole_length(decoder.spec) + MORE
    x_BTD = torch.randn(2, longest, decoder.spec.levels[0].width, dtype=torch.float64)
    expected = decoder(x_BTD)
    for prefill in (1, longest - MORE):
        cache = decoder.make_cache(2, max_length=longest)
        decoder.compiled_step = None
        outs = [decoder(x_BTD[:, :prefill], cache)]
        decoder.compiled_step = steps = Uncompiled()
        before = addresses(cache)
        outs += [decoder(x_BTD[:, t : t + 1], cache) for t in range(prefill, prefill + MORE)]
        torch.testing.assert_close(torch.cat(outs, 1), expected[:, : prefill + MORE], rtol=0, atol=1e-10)
        assert addresses(cache) == before
        assert len(steps.asked) == patterns(decoder.spec, range(prefill, prefill + MORE))


@torch.no_grad()
@pytest.mark.parametrize("name", STEPPED)
def test_rows_of_different_lengths_take_steps(name: str) -> None:
    decoder = make_decoder(WALKS[name])
    whole = whole_length(decoder.spec)
    x_BTD = torch.randn(3, whole + MORE, decoder.spec.levels[0].width, dtype=torch.float64)
    expected = decoder(x_BTD)
    lengths = np.array([whole - 1, 2, 0])
    cache = decoder.make_cache(3, max_length=whole + MORE)
    decoder(x_BTD[:, : whole - 1], cache, lengths)
    decoder.compiled_step = Uncompiled()
    each = torch.arange(3)
    for _ in range(MORE):
        found = decoder(x_BTD[each, lengths][:, None], cache)
        torch.testing.assert_close(found[:, 0], expected[each, lengths], rtol=0, atol=1e-10)
        lengths = lengths + 1


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize(("name", "graphs"), [("nested", 3), ("windows", 3), ("fovea", 2), ("attention_attention", 3)])
def test_a_pattern_is_one_graph_however_many_tokens(name: str, graphs: int) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    decoder = make_decoder(WALKS[name])
    longest = whole_length(decoder.spec) + MORE
    x_BTD = torch.randn(2, longest, decoder.spec.levels[0].width, dtype=torch.float64)
    expected = decoder(x_BTD)
    decoder.compiled_step = CompiledStep({"backend": "eager", "fullgraph": True})
    for _ in range(2):  # a second cache of that length is compiled for no more
        cache = decoder.make_cache(2, max_length=longest)
        decoder(x_BTD[:, :8], cache)
        found = [decoder(x_BTD[:, t : t + 1], cache) for t in range(8, longest)]
        torch.testing.assert_close(torch.cat(found, 1), expected[:, 8:], rtol=0, atol=1e-10)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    assert not torch._dynamo.utils.counters["graph_break"]


@torch.no_grad()
def test_what_else_is_done_to_a_cache_moves_nothing() -> None:
    decoder = make_decoder(WALKS["nested"])
    x_BTD = torch.randn(2, 40, 8, dtype=torch.float64)
    whole, swapped = decoder(x_BTD), decoder(x_BTD[[1, 0]])
    cache = decoder.make_cache(2, max_length=40)
    decoder(x_BTD[:, :21], cache)
    decoder.compiled_step = Uncompiled()
    before = addresses(cache)
    twin = copy.deepcopy(cache)
    assert not set(addresses(twin)) & set(before)
    cache.take_rows(torch.tensor([1, 0]))  # as a beam search does
    for t in range(21, 40):
        for held, expected in ((cache, swapped), (twin, whole)):
            rows = x_BTD[[1, 0]] if held is cache else x_BTD
            found = decoder(rows[:, t : t + 1], held)
            torch.testing.assert_close(found[:, 0], expected[:, t], rtol=0, atol=1e-10)
    cache.reset()
    found = decoder(x_BTD[[1, 0]], cache)
    torch.testing.assert_close(found, swapped, rtol=0, atol=1e-10)
    assert addresses(cache) == before


def test_gradients_go_through_a_cache_of_declared_length() -> None:
    decoder = make_decoder(WALKS["windows"])
    decoder.compiled_step = Uncompiled()  # steps with gradients are not compiled
    x_BTD = torch.randn(2, 30, 8, dtype=torch.float64, requires_grad=True)
    cache = decoder.make_cache(2, max_length=30)
    found = torch.cat([decoder(part, cache) for part in x_BTD.split([12, 1, 1, 16], 1)], 1)
    for actual, expected in zip(
        torch.autograd.grad(found.sin().sum(), [x_BTD, *decoder.parameters()]),
        torch.autograd.grad(decoder(x_BTD).sin().sum(), [x_BTD, *decoder.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


@torch.no_grad()
def test_more_than_was_declared_is_refused_before_anything_is_written() -> None:
    decoder = make_decoder(small("1@1 1@4 1@1"))
    x_BTD = torch.randn(1, 12, 8, dtype=torch.float64)
    cache = decoder.make_cache(1, max_length=10)
    decoder(x_BTD[:, :8], cache)
    with pytest.raises(FoveateError, match="made for 10 tokens and a row would have 11"):
        decoder(x_BTD[:, 8:11], cache)
    torch.testing.assert_close(decoder(x_BTD[:, 8:10], cache), decoder(x_BTD)[:, 8:10], rtol=0, atol=1e-10)
    with pytest.raises(FoveateError, match="max_length is 0"):
        decoder.make_cache(1, max_length=0)


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(set(WALKS) - set(STEPPED)))
def test_a_zoom_has_no_steps_at_fixed_addresses(name: str) -> None:
    decoder = make_decoder(WALKS[name])
    cache = decoder.make_cache(1, max_length=8)
    decoder.compiled_step = Uncompiled()
    with pytest.raises(FoveateError, match="its steps are not compiled"):
        decoder(torch.randn(1, 1, decoder.spec.levels[0].width, dtype=torch.float64), cache)


def test_on_a_device_with_graphs_what_steps_write_is_known_to_stay() -> None:
    cache = make_decoder(small("1@1 1@4 1@1")).make_cache(1, max_length=32)
    cache.allocate(torch.float32, torch.device("meta"))
    for held in (cache, copy.deepcopy(cache)):
        parts = [part for buffer in held.buffers for layer in range(buffer.layers) for part in buffer[layer]]
        assert parts
        assert all(part._dynamo_static_input_type == "unguarded" for part in parts)
