"""Attention to the last few units, and perhaps to the first ones of all: windows, with or without sinks.

The buffer is a ring, behind the slots of pinned units if there are any. More units at once than two windows are cut
into blocks of one window each: a block sees itself and the one before it, so the work is linear in their number.

Shape legend: R rows, S new units, L keys, H heads, K key-value heads, d head width, W window, P pinned units, n
blocks of W units.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from foveate.model.attention import Heads, Metadata, additive
from foveate.model.buffer import Buffer, Place
from foveate.model.clock import Units
from foveate.model.rotary import Rotary
from foveate.model.slots import Slots
from foveate.spec import Level, Window


class LocalAttention(Heads):
    """Every unit sees the last ``window`` units, itself included, and the first ``pinned`` ones."""

    def __init__(self, level: Level, attention: Window) -> None:
        super().__init__(level, attention)
        self.window, self.pinned = attention.window, attention.pinned

    def make_buffer(self, stride: int, layers: int) -> Buffer:
        slots = Slots(keep=self.window, pinned=self.pinned)
        return Buffer(stride=stride, width=self.head_dim, heads=self.kv_heads, layers=layers, parts=2, slots=slots)

    def prepare(
        self, units: Units, buffer: Buffer | None, place: Place | None, rotary: Rotary, x: Tensor, dtype: torch.dtype
    ) -> Metadata:
        masks = (None if visible is None else additive(visible, dtype) for visible in self._visible(units, buffer, x))
        mask, block_mask = masks
        return Metadata(
            units=units,
            buffer=buffer,
            place=place,
            rotation=rotary(units, x),
            mask=mask,
            block_mask=block_mask,
        )

    # what may be seen

    def _visible(self, units: Units, buffer: Buffer | None, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """By the first units, [R or 1, 1, S, L], and by the blocks after them, [1 or R·(n - 1), 1, W, L]."""
        W, S, device = self.window, units.size, x.device
        if buffer is not None and S == 1:
            return self._visible_slots(units, buffer, device), None
        if buffer is not None and not units.fresh:
            start = units.first if units.aligned else units.starts(device)[..., None]
            head = self._near(min(S, W), device) & (torch.arange(W + min(S, W), device=device) >= W - start)
            head = self._with_pinned(head if units.aligned else head[:, None], start, device)
            return head, self._visible_to_blocks(S, start, len(x), device) if S > W else None
        if S >= 2 * W:
            return None, self._visible_to_blocks(S, 0, len(x), device)
        if S <= W:
            return None, None
        query, key = torch.arange(S, device=device)[:, None], torch.arange(S, device=device)
        return ((key <= query) & ((key > query - W) | (key < self.pinned)))[None, None], None

    def _visible_slots(self, units: Units, buffer: Buffer, device: torch.device) -> Tensor | None:
        slots: Slots = buffer.slots
        if units.aligned and not slots.slack:
            return None  # every slot that was ever written
        newest_R1 = units.starts(device)
        position = slots.position(newest_R1, torch.arange(buffer.capacity, device=device))
        visible = (position >= 0) & ((position > newest_R1 - self.window) | (position < self.pinned))
        return visible[:, None, None]

    def _near(self, queries: int, device: torch.device) -> Tensor:
        """[queries, W + queries]: of the W units before the first query and the queries themselves, the last W."""
        row, column = torch.arange(queries, device=device)[:, None], torch.arange(self.window + queries, device=device)
        return (column > row) & (column <= row + self.window)

    def _with_pinned(self, near: Tensor, first: int | Tensor, device: torch.device) -> Tensor:
        """[…, 1, Q, P + L]: before the keys of ``near`` the pinned ones, where those are not among them."""
        near = near if near.dim() > 2 else near[None, None]
        if not self.pinned:
            return near
        query = torch.arange(near.shape[-2], device=device)[:, None] + first
        pinned = torch.arange(self.pinned, device=device) <= query - self.window
        pinned = pinned if pinned.dim() == 2 else pinned.unsqueeze(-3)
        shape = torch.broadcast_shapes(near.shape[:-1], pinned.shape[:-1])
        return torch.cat((pinned.expand(*shape, -1), near.expand(*shape, -1)), -1)

    def _visible_to_blocks(self, S: int, start: int | Tensor, rows: int, device: torch.device) -> Tensor:
        near = self._near(self.window, device)[None, None]
        if not self.pinned:
            return near  # all blocks are alike
        first = torch.arange(self.window, S, self.window, device=device)[:, None, None] + (
            start if isinstance(start, int) else start[:, None]
        )
        visible = self._with_pinned(near, first, device)  # [R or none, n - 1, 1, W, L]
        return visible.expand(rows, *visible.shape[-4:]).flatten(0, 1)

    # attending

    def forward(self, qkv: Tensor, metadata: Metadata, layer: int) -> Tensor:
        q_RSHd, k_RSKd, v_RSKd = self.split(qkv, metadata)
        units, buffer, place, mask = metadata.units, metadata.buffer, metadata.place, metadata.mask
        if buffer is None or place is None:
            return self._fresh(q_RSHd, (k_RSKd, v_RSKd), metadata)
        if units.size == 1:
            buffer.write(layer, place, k_RSKd, v_RSKd)
            slots = min(buffer.capacity, units.longest) if mask is None else buffer.capacity
            return self.attend(q_RSHd, *buffer.read(layer, units, slots), mask=mask)
        if units.fresh:
            out = self._fresh(q_RSHd, (k_RSKd, v_RSKd), metadata)
        else:
            out = self._after(q_RSHd, (k_RSKd, v_RSKd), buffer, layer, metadata)
        buffer.write(layer, place, k_RSKd, v_RSKd)  # only now: the ring's slots are also the past just attended to
        return out

    def _fresh(self, q_RSHd: Tensor, new: tuple[Tensor, Tensor], metadata: Metadata) -> Tensor:
        W, mask = self.window, metadata.mask
        k_RKSd, v_RKSd = (part.transpose(1, 2) for part in new)
        if metadata.block_mask is None:
            return self.attend(q_RSHd, k_RKSd, v_RKSd, mask=mask, causal=mask is None)
        head = self.attend(q_RSHd[:, :W], k_RKSd[:, :, :W], v_RKSd[:, :, :W], causal=True)
        missing = max(self.pinned - q_RSHd.shape[1], 0)  # of so short a text nobody sees them
        pinned = [pad(part[:, : self.pinned], (0, 0, 0, 0, 0, missing)) for part in new]
        return torch.cat((head, self._blocks(q_RSHd, new, pinned, metadata.block_mask)), 1)

    def _after(
        self, q_RSHd: Tensor, new: tuple[Tensor, Tensor], buffer: Buffer, layer: int, metadata: Metadata
    ) -> Tensor:
        """Units after those in the buffer: the first W of them with the buffer's, the rest as blocks."""
        W, units = self.window, metadata.units
        pinned = self._pinned(buffer, layer, units, new)
        keys, values = (
            torch.cat((first, old, part[:, :W]), 1).transpose(1, 2)
            for first, old, part in zip(pinned, buffer.recent(layer, units, W), new, strict=True)
        )
        out = self.attend(q_RSHd[:, :W], keys, values, mask=metadata.mask)
        if metadata.block_mask is None:
            return out
        return torch.cat((out, self._blocks(q_RSHd, new, pinned, metadata.block_mask)), 1)

    def _blocks(self, q_RSHd: Tensor, new: tuple[Tensor, Tensor], pinned: list[Tensor], mask: Tensor) -> Tensor:
        """The queries after the first W, [R, S - W, H, d], each block with the one before it and what is pinned."""
        R, S, W = *q_RSHd.shape[:2], self.window
        n = -(-S // W)
        q_RnWHd, *new_RnWKd = (pad(part, (0, 0, 0, 0, 0, n * W - S)).unflatten(1, (n, W)) for part in (q_RSHd, *new))
        keys, values = (
            torch.cat((first[:, None].expand(-1, n - 1, -1, -1, -1), part[:, :-1], part[:, 1:]), 2)
            .flatten(0, 1)
            .transpose(1, 2)
            for first, part in zip(pinned, new_RnWKd, strict=True)
        )
        rest = self.attend(q_RnWHd[:, 1:].flatten(0, 1), keys, values, mask=mask)
        return rest.unflatten(0, (R, n - 1)).flatten(1, 2)[:, : S - W]

    def _pinned(self, buffer: Buffer, layer: int, units: Units, new: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Keys and values of the pinned units, [R, P, K, d] each, in the buffer or among the new."""
        if not self.pinned:
            return [part[:, :0] for part in new]
        position, start_R1 = torch.arange(self.pinned, device=new[0].device), units.starts(new[0].device)
        slot = position.clamp(max=buffer.capacity - 1).expand(len(start_R1), -1)
        column = (position - start_R1).clamp(0, units.size - 1).expand(len(new[0]), -1)[..., None, None]
        known = (position < start_R1)[..., None, None]
        return [
            torch.where(known, old, part.gather(1, column.expand(-1, -1, *part.shape[2:])))
            for old, part in zip(buffer.gather(layer, units, slot), new, strict=True)
        ]
