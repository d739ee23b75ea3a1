"""How the layers of a run look back: what all kinds share, and full attention.

Metadata is made once per run and call (``prepare``: which keys, under which mask) and used by every layer of the run.

Shape legend: R rows, S new units, L keys, H heads, K key-value heads, d head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor, nn

from foveate.backends import attend
from foveate.model.buffer import Buffer, Place
from foveate.model.clock import Units
from foveate.model.rotary import Rotary, Rotation, rotate
from foveate.spec import Attention, Level


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What the layers of a run share in one call: which units are new and their rotations, what may be seen, where
    keys and values are kept.

    Attributes:
        mask: 0 to be added where a key may be seen, -inf elsewhere, [R or 1, 1, S, L]; None: as the kind has it.
        block_mask: where the units of a call are attended to in blocks, that of the blocks after the first.
        checkpointed: each layer is computed again in the backward pass.
    """

    units: Units
    buffer: Buffer | None
    place: Place | None
    rotation: Rotation
    mask: Tensor | None = None
    block_mask: Tensor | None = None
    checkpointed: bool = False


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask to be added to scores: 0 where ``visible``, else -inf."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -torch.inf)


class Heads(nn.Module):
    """What every kind of attention starts from: a level's queries, keys and values in one tensor."""

    soft_cap: float | None = None  # of scores; set by the layer

    def __init__(self, level: Level, attention: Attention) -> None:
        super().__init__()
        self.kind = attention
        self.heads, self.kv_heads, self.head_dim = level.heads, level.kv_heads, level.head_dim

    def attend(
        self, q_RSHd: Tensor, k_RKLd: Tensor, v_RKLd: Tensor, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """See ``foveate.backends.attend``; the layer's soft cap is applied."""
        return attend(q_RSHd, k_RKLd, v_RKLd, mask=mask, causal=causal, soft_cap=self.soft_cap)

    def extra_repr(self) -> str:
        return str(self.kind)

    def split(self, qkv: Tensor, metadata: Metadata) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries [R, S, H, d], rotated keys and values [R, S, K, d] of [R, S, H + 2K, d]."""
        rotated = self.heads + self.kv_heads
        q_RSHd, k_RSKd = rotate(qkv[:, :, :rotated], *metadata.rotation).split((self.heads, self.kv_heads), 2)
        return q_RSHd, k_RSKd, qkv[:, :, rotated:]

    def make_buffer(self, stride: int, layers: int) -> Buffer:
        """An empty buffer for the keys and values of a run of ``layers``."""
        raise NotImplementedError

    def prepare(
        self, units: Units, buffer: Buffer | None, place: Place | None, rotary: Rotary, x: Tensor, dtype: torch.dtype
    ) -> Metadata:
        """What the layers of a run share for the new units of the stream ``x``, computed in ``dtype``."""
        raise NotImplementedError

    def forward(self, qkv: Tensor, metadata: Metadata, layer: int) -> Tensor:
        """[R, S, H, d] of [R, S, H + 2K, d]; ``layer`` is the place in the run, and so in the buffer."""
        raise NotImplementedError


def make_heads(level: Level, attention: Attention) -> Heads:
    """The module that computes a kind of attention."""
    module, _, name = attention.module.partition(":")
    made: Heads = getattr(import_module(module), name)(level, attention)
    return made


class FullAttention(Heads):
    """Every unit sees itself and all units before it."""

    def make_buffer(self, stride: int, layers: int) -> Buffer:
        return Buffer(stride=stride, width=self.head_dim, heads=self.kv_heads, layers=layers, parts=2)

    def prepare(
        self, units: Units, buffer: Buffer | None, place: Place | None, rotary: Rotary, x: Tensor, dtype: torch.dtype
    ) -> Metadata:
        mask = None
        if buffer is not None and not units.fresh and not (units.aligned and units.size == 1):
            mask = torch.arange(units.longest, device=x.device) <= units.positions(x.device)[..., None]
            mask = additive(mask[None, None] if units.aligned else mask[:, None], dtype)
        return Metadata(units=units, buffer=buffer, place=place, rotation=rotary(units, x), mask=mask)

    def forward(self, qkv: Tensor, metadata: Metadata, layer: int) -> Tensor:
        q_RSHd, k_RSKd, v_RSKd = self.split(qkv, metadata)
        units, buffer = metadata.units, metadata.buffer
        if buffer is not None and metadata.place is not None:
            buffer.write(layer, metadata.place, k_RSKd, v_RSKd)
        if buffer is None or units.fresh:
            return self.attend(q_RSHd, k_RSKd.transpose(1, 2), v_RSKd.transpose(1, 2), causal=True)
        k_RKLd, v_RKLd = buffer.read(layer, units, units.longest)
        return self.attend(q_RSHd, k_RKLd, v_RKLd, mask=metadata.mask)
