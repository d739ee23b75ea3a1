"""Where and how a zoom state keeps its keys and values: as they are or in 8 bits, on the device or off it.

Means of groups, which every query reads, stay on the device as they are; of the rest what a query reads is brought.

Shape legend: R rows, K key heads, L slots, d head width.
"""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from foveate.errors import FoveateError, shown

PLACES = (None, "cpu", "disk")


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """How keys and values are kept.

    Args:
        bits: 8: whole numbers from -127 to 127 and a scale for each vector; ``None``: as they are.
        offload: ``"cpu"``: in main memory, pinned where the device is a GPU; ``"disk"``: in a file of the folder for
            temporary files, mapped, which vanishes with the state; ``None``: on the device.
    """

    bits: int | None = None
    offload: str | None = None

    def __post_init__(self) -> None:
        if self.bits not in (None, 8):
            raise FoveateError(
                f"zoom: bits={shown(self.bits)}: keys and values are kept in 8 bits, or as they are (None)"
            )
        if self.offload not in PLACES:
            raise FoveateError(f'zoom: offload={shown(self.offload)} is unknown; use "cpu", "disk" or None')

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Zeros where keys and values of a model on ``device`` are kept."""
        if self.offload is None:
            return torch.zeros(shape, dtype=dtype, device=device)
        if self.offload == "cpu":
            return torch.zeros(shape, dtype=dtype, pin_memory=device.type == "cuda")
        if not math.prod(shape):
            return torch.zeros(shape, dtype=dtype)
        handle, name = tempfile.mkstemp(prefix="foveate-zoom-")
        try:
            os.truncate(handle, math.prod(shape) * dtype.itemsize)
            mapped = torch.from_file(name, shared=True, size=math.prod(shape), dtype=dtype)
        except OSError as error:
            raise FoveateError(f"zoom: no room on disk for keys and values: {error.strerror}") from None
        finally:
            os.close(handle)
            Path(name).unlink()  # the mapping holds it
        return mapped.view(shape)

    def kept(self, x: Tensor, device: torch.device) -> Tensor:
        """``x`` where keys and values of a model on ``device`` are kept."""
        new = self.zeros(tuple(x.shape), x.dtype, device)
        return new.copy_(x)


@dataclass(frozen=True)
class Kept:
    """Keys or values of all slots [R, K, L, d] as they are kept; ``piece`` and ``picked`` bring them to the device."""

    data: Tensor  # numbers or codes
    scale: Tensor | None  # of codes, [R, K, L, 1]
    dtype: torch.dtype
    device: torch.device

    @property
    def shape(self) -> torch.Size:
        return self.data.shape

    def piece(self, a: int, b: int, rows: slice = slice(None)) -> Tensor:
        """Slots from a to below b."""
        scale = None if self.scale is None else self.scale[rows, :, a:b]
        return self._brought(self.data[rows, :, a:b], scale)

    def picked(self, flat_n: Tensor) -> Tensor:
        """[n, d] of these among the slots of all rows and heads, one after another."""
        flat_n = flat_n.to(self.data.device)
        data, scale = (
            None if x is None else x.reshape(-1, x.shape[-1]).index_select(0, flat_n) for x in (self.data, self.scale)
        )
        assert data is not None
        return self._brought(data, scale)

    def put(self, a: int, x_RKnd: Tensor, rows: slice = slice(None)) -> None:
        """Write slots from a on."""
        b = a + x_RKnd.shape[2]
        if self.scale is None:
            self.data[rows, :, a:b] = x_RKnd.to(self.data.device)
            return
        scale = (x_RKnd.float().abs().amax(-1, keepdim=True) / 127).clamp_min(1e-30)
        self.data[rows, :, a:b] = (x_RKnd.float() / scale).round().to(self.data.device, torch.int8)
        self.scale[rows, :, a:b] = scale.to(self.scale.device)

    def reorder(self, a: int, b: int, order_RKn: Tensor, rows: slice = slice(None)) -> None:
        """Let the slots from a to below b lie in this order."""
        index = order_RKn.to(self.data.device)[..., None]
        for x in (self.data, self.scale):
            if x is not None:
                part = x[rows, :, a:b]
                x[rows, :, a:b] = part.gather(2, index.expand_as(part))

    def _brought(self, data: Tensor, scale: Tensor | None) -> Tensor:
        data = data.to(self.device)
        return data if scale is None else (data * scale.to(self.device)).to(self.dtype)


def piece(x: Tensor | Kept, a: int, b: int) -> Tensor:
    return x[:, :, a:b] if isinstance(x, Tensor) else x.piece(a, b)


def picked(x: Tensor | Kept, flat_n: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).index_select(0, flat_n) if isinstance(x, Tensor) else x.picked(flat_n)
