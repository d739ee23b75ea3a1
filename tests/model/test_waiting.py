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

from contracts.walks import WALKS
from foveate.model.decoder import Decoder

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
