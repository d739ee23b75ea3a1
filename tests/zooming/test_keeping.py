"""Keys and values in 8 bits, in main memory or in a file: the same attention, nearly or exactly, in far fewer bytes."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import pytest
import torch

from foveate.errors import FoveateError
from foveate.zooming import Keeping, ZoomPlan, ZoomState
from foveate.zooming.state import KEPT

PLAN = ZoomPlan(near=5, sinks=2, block=16, groups=(8, 4, 2), keep=(2, 3, 3), opened=3, thumbnails=4)
SCALE = 0.3


def texts(tokens: int = 67) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [2 * torch.randn(2, n, tokens, 16) for n in (4, 2, 2)]


def read(state: ZoomState, tensors: list[torch.Tensor], calls: list[int]) -> torch.Tensor:
    outs = [state.read(*part, scale=SCALE) for part in zip(*(x.split(calls, 2) for x in tensors), strict=True)]
    return torch.cat(outs, 2)


@pytest.mark.parametrize("offload", ["cpu", "disk"])
@pytest.mark.parametrize("bits", [None, 8])
def test_where_they_are_changes_nothing(offload, bits) -> None:
    tensors = texts()
    here = read(ZoomState(PLAN, Keeping(bits=bits)), tensors, [40, 1, 26])
    state = ZoomState(PLAN, Keeping(bits=bits, offload=offload))
    files = set(Path(tempfile.gettempdir()).glob("foveate-zoom-*"))
    assert torch.equal(read(state, tensors, [40, 1, 26]), here)
    assert set(Path(tempfile.gettempdir()).glob("foveate-zoom-*")) <= files
    assert state.nbytes - state.device_nbytes == sum(
        state._tensors[name].nbytes for name in KEPT if name in state._tensors
    )
    twin = copy.deepcopy(state)
    twin.remove_last(30)
    twin.take_rows(torch.tensor([1, 0]))
    again = ZoomState(PLAN, state.keeping)
    again.restore(*twin.saved())
    rest = read(again, [x[[1, 0], :, 37:] for x in tensors], [30])
    # what was taken back and read again: in 8 bits it was rounded once, so it is the same
    torch.testing.assert_close(rest, here[[1, 0], :, 37:], rtol=0, atol=1e-5)


def test_8_bits_are_close_and_a_quarter() -> None:
    tensors = texts()
    opened = ZoomPlan(near=5, sinks=2, block=16, groups=(8, 4, 2), keep=(None,) * 3, opened=999, thumbnails=4)
    exact = read(ZoomState(opened), tensors, [67])
    state = ZoomState(opened, Keeping(bits=8))
    off = (read(state, tensors, [67]) - exact).norm() / exact.norm()
    assert 1e-4 < off < 0.02  # rounding to 1/254 of a vector's largest channel
    held = state._tensors["keys"].nbytes + state._tensors["keys_scale"].nbytes
    assert held == state._tensors["keys"].numel() * (1 + 4 / 16)
    pieces = read(ZoomState(opened, Keeping(bits=8)), tensors, [3, 60, 4])
    torch.testing.assert_close(pieces, read(ZoomState(opened, Keeping(bits=8)), tensors, [67]), rtol=0, atol=1e-5)


def test_bad_settings_are_named() -> None:
    with pytest.raises(FoveateError, match="bits=4"):
        Keeping(bits=4)
    with pytest.raises(FoveateError, match="offload='gpu' is unknown"):
        Keeping(offload="gpu")
    state = ZoomState(PLAN, Keeping(bits=8))
    read(state, texts(), [67])
    with pytest.raises(FoveateError, match="kept in 8 bits; zoom with bits=8"):
        ZoomState(PLAN).restore(*state.saved())
