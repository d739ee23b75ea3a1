"""How the layers of a run look back: full and window attention, with or without a tape.

A view is made once per run and call (``prepare``: which keys, under which mask) and used by every layer of the run.

Shape legend: R rows, S new units, L keys, H heads, K key-value heads, d head width, W window, n blocks of W units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from foveate.model import tiled
from foveate.model.clock import Span
from foveate.model.rotary import Rotary, rotate
from foveate.model.tape import Tape
from foveate.spec import Attention, Level

COPIED_AT_ONCE = 1 << 23  # bytes


def attend(
    q_RSHd: Tensor, k_RKLd: Tensor, v_RKLd: Tensor, *, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """Scaled dot-product attention with grouped queries, [R, S, H, d]."""
    S, H = q_RSHd.shape[1:3]
    if S == 1:
        return _attend_one(q_RSHd, k_RKLd, v_RKLd, mask)
    if tiled.wins(q_RSHd, mask):
        return tiled.attend_in_tiles(q_RSHd.transpose(1, 2), k_RKLd, v_RKLd, mask, causal).transpose(1, 2)
    out_RHSd = scaled_dot_product_attention(
        q_RSHd.transpose(1, 2), k_RKLd, v_RKLd, attn_mask=mask, is_causal=causal, enable_gqa=k_RKLd.shape[1] != H
    )
    return out_RHSd.transpose(1, 2)


def _attend_one(q_R1Hd: Tensor, k_RKLd: Tensor, v_RKLd: Tensor, mask: Tensor | None) -> Tensor:
    """One query of each row, [R, 1, H, d]; those of a group of heads share their keys, as rows of one product."""
    R, _, H, d = q_R1Hd.shape
    K = k_RKLd.shape[1]
    q_RKGd = q_R1Hd.view(R, K, H // K, d)
    if q_R1Hd.device.type != "cpu":
        mask = mask if mask is None or mask.dim() == 2 else mask.expand(-1, -1, H // K, -1)
        return scaled_dot_product_attention(q_RKGd, k_RKLd, v_RKLd, attn_mask=mask).reshape(R, 1, H, d)
    # two products: torch's kernel for CPUs takes longer, in bf16 several times as long
    q_NGd, k_NLd = q_RKGd.flatten(0, 1) * d**-0.5, k_RKLd.flatten(0, 1)
    if q_NGd.dtype == torch.bfloat16:  # where a product is slow whose second factor is transposed
        s_NLG = _bmm(k_NLd, q_NGd.transpose(1, 2))
        # a view, not a transposition, whose strides would count as transposed in the second product
        s_NGL = s_NLG.view(len(s_NLG), 1, -1) if H == K else s_NLG.transpose(1, 2).contiguous()
    else:
        s_NGL = _bmm(q_NGd, k_NLd.transpose(1, 2))
    if mask is not None:
        s_RKGL = s_NGL.unflatten(0, (R, K))
        s_RKGL = s_RKGL.masked_fill(~mask, -torch.inf) if mask.dtype is torch.bool else s_RKGL + mask
        s_NGL = s_RKGL.flatten(0, 1)
    p_NGL = torch.softmax(s_NGL, -1).to(v_RKLd.dtype)  # a mask to be added may be more exact than the keys
    return _bmm(p_NGL, v_RKLd.flatten(0, 1)).view(R, 1, H, d)


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    """``torch.bmm``, which in bf16 copies what is part of a larger tensor: here in pieces that a cache holds."""
    largest = max(a.nbytes, b.nbytes)
    if a.dtype != torch.bfloat16 or largest <= COPIED_AT_ONCE:
        return torch.bmm(a, b)
    n = max(1, len(a) * COPIED_AT_ONCE // largest)
    return torch.cat([torch.bmm(*pair) for pair in zip(a.split(n), b.split(n), strict=True)])


@dataclass(frozen=True)
class View:
    """What the layers of a run share in one call: which units are new, their rotations, what may be seen."""

    span: Span
    tape: Tape | None
    cos: Tensor
    sin: Tensor
    mask: Tensor | None = None  # True, or 0 to be added, where a key may be seen
    checkpointed: bool = False  # each layer is computed again in the backward pass


class Heads(nn.Module):
    """What every kind of attention starts from: a level's queries, keys and values in one tensor."""

    def __init__(self, level: Level, attention: Attention) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = level.heads, level.kv_heads, level.head_dim

    def split(self, qkv: Tensor, view: View) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries [R, S, H, d], rotated keys and values [R, S, K, d] of [R, S, H + 2K, d]."""
        rotated = self.heads + self.kv_heads
        q_RSHd, k_RSKd = rotate(qkv[:, :, :rotated], view.cos, view.sin).split((self.heads, self.kv_heads), 2)
        return q_RSHd, k_RSKd, qkv[:, :, rotated:]

    def raw_keys(self, qkv: Tensor) -> Tensor:
        """Keys before rotation, [R, S, K, d]."""
        return qkv[:, :, self.heads : self.heads + self.kv_heads]

    def make_tape(self, stride: int, layers: int) -> Tape:
        """An empty tape for the keys and values of a run of ``layers``."""
        raise NotImplementedError

    def prepare(self, span: Span, tape: Tape | None, rotary: Rotary, x: Tensor) -> View:
        """What the layers of a run share for the new units ``span`` of the stream ``x``."""
        raise NotImplementedError


class FullAttention(Heads):
    """Every unit sees itself and all units before it."""

    def make_tape(self, stride: int, layers: int) -> Tape:
        return Tape(stride=stride, width=self.head_dim, heads=self.kv_heads, layers=layers, parts=2)

    def prepare(self, span: Span, tape: Tape | None, rotary: Rotary, x: Tensor) -> View:
        cos, sin = rotary(span, x)
        if tape is None or span.fresh or (span.even and span.size == 1):
            return View(span, tape, cos, sin)
        mask = torch.arange(span.longest, device=x.device) <= span.positions(x.device)[..., None]
        return View(span, tape, cos, sin, mask if span.even else mask[:, None])

    def forward(self, qkv: Tensor, view: View, layer: int) -> Tensor:
        q_RSHd, k_RSKd, v_RSKd = self.split(qkv, view)
        span, tape = view.span, view.tape
        if tape is not None:
            tape.write(layer, span, k_RSKd, v_RSKd)
        if tape is None or span.fresh:
            return attend(q_RSHd, k_RSKd.transpose(1, 2), v_RSKd.transpose(1, 2), causal=True)
        k_RKLd, v_RKLd = tape.read(layer, span, span.longest)
        return attend(q_RSHd, k_RKLd, v_RKLd, mask=view.mask)


class WindowAttention(Heads):
    """Every unit sees the last ``window`` units, itself included. The tape is a ring of as many slots.

    More units than a window at once are cut into blocks of one window each: a block sees itself and the one before
    it, so the work is linear in their number.
    """

    def __init__(self, level: Level, attention: Attention) -> None:
        super().__init__(level, attention)
        assert attention.window is not None
        self.window = attention.window

    def extra_repr(self) -> str:
        return f"window={self.window}"

    def make_tape(self, stride: int, layers: int) -> Tape:
        return Tape(stride=stride, width=self.head_dim, heads=self.kv_heads, keep=self.window, layers=layers, parts=2)

    def prepare(self, span: Span, tape: Tape | None, rotary: Rotary, x: Tensor) -> View:
        return View(span, tape, *rotary(span, x), self._mask(span, tape, x.device))

    def _mask(self, span: Span, tape: Tape | None, device: torch.device) -> Tensor | None:
        W, S = self.window, span.size
        if tape is None or (span.fresh and S > 1):
            return None
        if S == 1:
            return self._slots_in_window(span, tape, device)
        # column j of row i's keys lies at distance i + W - j; before the row's first unit there is nothing
        rows, columns = torch.arange(min(S, W), device=device), torch.arange(W + min(S, W), device=device)
        mask = (columns > rows[:, None]) & (columns <= rows[:, None] + W)
        if span.even:
            return mask & (columns >= W - cast(int, span.start))
        return mask & (columns >= W - span.starts(device))[:, None, None]

    def _slots_in_window(self, span: Span, tape: Tape, device: torch.device) -> Tensor | None:
        if span.even and tape.ring == self.window:
            return None  # every slot that was ever written
        positions = tape.slot_positions(span, device)
        newest = span.positions(device)
        mask = (positions >= 0) & (positions > newest - self.window)
        return mask if span.even else mask[:, None, None]

    def forward(self, qkv: Tensor, view: View, layer: int) -> Tensor:
        q_RSHd, k_RSKd, v_RSKd = self.split(qkv, view)
        span, tape, W = view.span, view.tape, self.window
        if span.size == 1 and tape is not None:
            tape.write(layer, span, k_RSKd, v_RSKd)
            slots = min(tape.capacity, span.longest) if view.mask is None else tape.capacity
            return attend(q_RSHd, *tape.read(layer, span, slots), mask=view.mask)
        past = None
        if tape is not None and not span.fresh:
            past = tape.recent(layer, span, W)
        out = self._blocked(q_RSHd, k_RSKd, v_RSKd, past, view.mask)
        if tape is not None:  # only now: the ring's slots are also the past just attended to
            tape.write(layer, span, k_RSKd, v_RSKd)
        return out

    def _blocked(
        self, q_RSHd: Tensor, k_RSKd: Tensor, v_RSKd: Tensor, past: tuple[Tensor, ...] | None, mask: Tensor | None
    ) -> Tensor:
        S, W = q_RSHd.shape[1], self.window
        first = [part[:, :W] for part in (q_RSHd, k_RSKd, v_RSKd)]
        if past is None:
            head = attend(first[0], first[1].transpose(1, 2), first[2].transpose(1, 2), causal=True)
        else:
            keys, values = (torch.cat(pair, 1).transpose(1, 2) for pair in zip(past, first[1:], strict=True))
            head = attend(first[0], keys, values, mask=mask)
        if S <= W:
            return head
        n = -(-S // W)
        q_RnWHd, k_RnWKd, v_RnWKd = (
            pad(part, (0, 0, 0, 0, 0, n * W - S)).unflatten(1, (n, W)) for part in (q_RSHd, k_RSKd, v_RSKd)
        )
        keys, values = (
            torch.cat((part[:, :-1], part[:, 1:]), 2).flatten(0, 1).transpose(1, 2) for part in (k_RnWKd, v_RnWKd)
        )
        rows, columns = torch.arange(W, device=keys.device), torch.arange(2 * W, device=keys.device)
        band = (columns > rows[:, None]) & (columns <= rows[:, None] + W)
        rest = attend(q_RnWHd[:, 1:].flatten(0, 1), keys, values, mask=band)
        rest = rest.unflatten(0, (-1, n - 1)).flatten(1, 2)
        return torch.cat((head, rest[:, : S - W]), 1)
