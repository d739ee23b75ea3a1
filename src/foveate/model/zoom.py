"""Zoom as attention of a walk: near units as they are, far ones as thumbnails, opened where a query looks.

The core is ``foveate.zooming``. The buffer holds every key and value in the order of the text, from which all follows;
while no gradient is wanted it also files them, sorted block by block: a unit's work then does not grow with the text.

Shape legend: R rows, S new units, L keys, H heads, K key-value heads, d head width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveate.errors import FoveateError
from foveate.model.attention import Heads, Metadata
from foveate.model.buffer import Buffer, Place
from foveate.model.clock import Units
from foveate.model.rotary import Rotary
from foveate.model.steps import StepUnits
from foveate.spec import Level, Zoom
from foveate.zooming.state import ZoomState
from foveate.zooming.whole import zoom_attention


class ZoomBuffer(Buffer):
    """All keys and values in order, and what is filed of them; that is dropped with whatever it followed from."""

    def __init__(self, zoom: Zoom, *, stride: int, width: int, heads: int, layers: int) -> None:
        super().__init__(stride=stride, width=width, heads=heads, layers=layers, parts=2)
        self.zoom = zoom
        self.filed: dict[int, ZoomState] = {}

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(state.nbytes for state in self.filed.values())

    def _set(self, data: Tensor | None, spare: bool = False) -> None:
        self.filed = {}
        super()._set(data, spare)

    def _grow(self, capacity: int, spare: bool, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        filed = self.filed
        super()._grow(capacity, spare, batch, dtype, device)
        self.filed = filed

    def up_to(self, layer: int, lengths: list[int]) -> ZoomState:
        """The layer's state of rows of ``lengths`` units, -1 of rows that may stay as they are."""
        state = self.filed.setdefault(layer, ZoomState(self.zoom.plan))
        if not state.lengths:
            state.begin(len(lengths))
        state.cut([held if length < 0 else length for held, length in zip(state.lengths, lengths, strict=True)])
        keys, values = self[layer]
        state.catch_up(keys, values, [max(length, 0) for length in lengths])
        return state


class ZoomAttention(Heads):
    """See the module's docstring."""

    def __init__(self, level: Level, zoom: Zoom) -> None:
        super().__init__(level, zoom)
        self.zoom = zoom

    def make_buffer(self, stride: int, layers: int) -> ZoomBuffer:
        return ZoomBuffer(self.zoom, stride=stride, width=self.head_dim, heads=self.kv_heads, layers=layers)

    def prepare(
        self, units: Units, buffer: Buffer | None, place: Place | None, rotary: Rotary, x: Tensor, dtype: torch.dtype
    ) -> Metadata:
        if self.soft_cap is not None:
            raise FoveateError("zoom: soft-capped scores are not computed by it; use full attention or a window")
        if isinstance(units, StepUnits):
            raise FoveateError("zoom: its steps are not compiled; decode without compile_decoding")
        return Metadata(units=units, buffer=buffer, place=place, rotation=rotary(units, x))

    def forward(self, qkv: Tensor, metadata: Metadata, layer: int) -> Tensor:
        units, buffer = metadata.units, metadata.buffer
        q_RSHd, k_RSKd, v_RSKd = self.split(qkv, metadata)
        if buffer is None or metadata.place is None:
            return self._whole(*(part.transpose(1, 2) for part in (q_RSHd, k_RSKd, v_RSKd)))
        assert isinstance(buffer, ZoomBuffer)
        if not buffer.live:
            out = self._filed(q_RSHd, k_RSKd, v_RSKd, units, buffer, layer)
            buffer.write(layer, metadata.place, k_RSKd, v_RSKd)
            return out
        buffer.filed = {}
        buffer.write(layer, metadata.place, k_RSKd, v_RSKd)
        q_RHSd = q_RSHd.transpose(1, 2)
        k_RKLd, v_RKLd = buffer.read(layer, units, units.longest)
        if units.aligned:
            return self._whole(q_RHSd, k_RKLd, v_RKLd)
        rows = []
        starts, counts = (np.broadcast_to(part, len(q_RHSd)).tolist() for part in (units.start, units.count))
        for r, (start, count) in enumerate(zip(starts, counts, strict=True)):
            one, end = slice(r, r + 1), start + count
            out = self._whole(q_RHSd[one, :, :count], k_RKLd[one, :, :end], v_RKLd[one, :, :end])
            rows.append(torch.nn.functional.pad(out, (0, 0, 0, 0, 0, units.size - count)))
        return torch.cat(rows)

    def _whole(self, q_RHSd: Tensor, k_RKLd: Tensor, v_RKLd: Tensor) -> Tensor:
        return zoom_attention(q_RHSd, k_RKLd, v_RKLd, self.zoom.plan).transpose(1, 2)

    def _filed(self, q: Tensor, k: Tensor, v: Tensor, units: Units, buffer: ZoomBuffer, layer: int) -> Tensor:
        """[R, S, H, d] by the layer's state, which takes the new keys and values in."""
        batch = len(buffer[layer][0])
        rows = np.arange(batch) if units.rows is None else units.rows
        lengths, counts = np.full(batch, -1), np.zeros(batch, dtype=np.int64)
        lengths[rows], counts[rows] = units.start, units.count
        new: Any = q, k, v
        index = None if units.rows is None else units.row_index(q.device)
        if index is not None:
            new = [part.new_zeros(batch, *part.shape[1:]).index_copy(0, index, part) for part in new]
        with torch.inference_mode(False), torch.no_grad():
            state = buffer.up_to(layer, lengths.tolist())
            q_BHSd, k_BKSd, v_BKSd = (part.transpose(1, 2) for part in new)
            out = state.read(q_BHSd, k_BKSd, v_BKSd, counts=counts.tolist(), scale=self.head_dim**-0.5).transpose(1, 2)
        return out if index is None else out[index]
