"""No call reads from the device, and none takes more than one array there.

On the meta device nothing can be read: whoever asks for a value there raises.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from contracts.walks import STEPPED, WALKS
from foveate.model.decoder import Decoder
from foveate.model.steps import CompiledStep

DEVICE = torch.device("meta")


class Uploads(TorchDispatchMode):
    """Counts copies from the CPU to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default:
            target = torch.device(kwargs.get("device") or args[0].device)
            assert target.type == DEVICE.type, "a read from the device"
            self.count += args[0].device.type == "cpu"
        return function(*args, **kwargs)


class NoDoubles(TorchDispatchMode):
    """As on Apple's GPUs, no tensor on the device has 64-bit floats."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        made = out if isinstance(out, tuple | list) else (out,)
        for tensor in made:
            if isinstance(tensor, torch.Tensor) and tensor.device.type == DEVICE.type:
                assert tensor.dtype != torch.float64, f"{function} makes 64-bit floats on the device"
        return out


@contextmanager
def at_most(uploads: int) -> Iterator[None]:
    with Uploads() as counted:
        yield
    assert counted.count <= uploads


@pytest.mark.parametrize("name", WALKS)
def test_a_call_does_not_wait(name: str) -> None:
    decoder = Decoder(WALKS[name]).to(DEVICE)
    x_BTD = torch.empty(3, 40, WALKS[name].levels[0].width, device=DEVICE)
    decoder(x_BTD)  # makes tables, once
    with at_most(0):
        decoder(x_BTD)
    with torch.no_grad():
        cache = decoder.make_cache(3)
        with at_most(0):
            decoder(x_BTD, cache)
            for _ in range(6):
                decoder(x_BTD[:, :1], cache)
        cache = decoder.make_cache(3)
        for counts in ([40, 7, 21], [1, 1, 1], [1, 1, 1], [9, 0, 5], [0, 1, 0], [1, 1, 1]):
            with at_most(1):
                decoder(x_BTD[:, : max(counts)], cache, np.array(counts))


@pytest.mark.parametrize("name", WALKS)
def test_packed_rows_take_one_array_there(name: str) -> None:
    decoder = Decoder(WALKS[name]).to(DEVICE)
    x_BTD = torch.empty(2, 40, WALKS[name].levels[0].width, device=DEVICE)
    documents_BT = torch.tensor([[0] * 17 + [1] * 3 + [2] * 20, [0] * 40])
    decoder(x_BTD, documents=documents_BT)  # makes tables, once
    with at_most(1):
        decoder(x_BTD, documents=documents_BT)


@pytest.mark.parametrize("name", WALKS)
def test_there_are_no_64_bit_floats_on_the_device(name: str) -> None:
    decoder = Decoder(WALKS[name]).to(DEVICE)
    x_BTD = torch.empty(3, 80, WALKS[name].levels[0].width, device=DEVICE, requires_grad=True)
    with NoDoubles():
        decoder(x_BTD).sum().backward()
        decoder(x_BTD, documents=torch.arange(80).expand(3, -1) // 13)
        with torch.no_grad():
            for max_length in (None, 100):
                cache = decoder.make_cache(3, max_length)
                decoder(x_BTD, cache)
                decoder(x_BTD[:, :1], cache)
            cache = decoder.make_cache(3)
            for counts in ([40, 7, 21], [1, 1, 1], [9, 0, 5]):
                decoder(x_BTD[:, : max(counts)], cache, np.array(counts))


def test_a_64_bit_float_is_seen() -> None:
    with NoDoubles(), pytest.raises(AssertionError, match="64-bit"):
        torch.zeros(2, device=DEVICE).double()


@pytest.mark.parametrize("name", STEPPED)
def test_a_step_at_fixed_addresses_takes_nothing_there(name: str) -> None:
    decoder = Decoder(WALKS[name]).to(DEVICE)
    x_BTD = torch.empty(3, 40, WALKS[name].levels[0].width, device=DEVICE)
    decoder.compiled_step = Uncompiled({})
    with torch.no_grad():
        for counts in (None, np.array([40, 7, 21])):
            cache = decoder.make_cache(3, max_length=64)
            decoder(x_BTD, cache, counts)
            decoder(x_BTD[:, :1], cache)  # tells the device the lengths
            with at_most(0):
                for _ in range(6):
                    decoder(x_BTD[:, :1], cache)


class Uncompiled(CompiledStep):
    def __call__(self, step: Any, *args: Any) -> torch.Tensor:
        out: torch.Tensor = step(*args)
        return out
