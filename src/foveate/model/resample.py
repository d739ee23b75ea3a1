"""Moving between levels: pooling complete groups into units, expanding the newest complete unit onto a finer stream.

Shape legend: R rows of the finer level, Q rows of the coarser one (those in which a unit completes), T new finer units,
S new coarser units, k finer units per coarser one, D width finer, C width coarser, P places: vectors a unit expands to
(1 or k).
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from foveate import spec
from foveate.model.attention import attend
from foveate.model.clock import Span, rows_within
from foveate.model.linear import Linear
from foveate.model.tape import Tape


class Pool(nn.Module):
    """Complete groups of k finer units to units. Its tape is the unfinished group.

    ``mean`` averages the normalised members, ``linear`` multiplies their concatenation by a matrix, ``attention`` adds
    to the mean what the mean finds when it attends to the members.
    """

    def __init__(self, move: spec.Pool, fine: spec.Level, coarse: spec.Level, kind: str, eps: float) -> None:
        super().__init__()
        self.factor, self.fine, self.coarse, self.kind = move.factor, fine, coarse, kind
        self.stride = move.stride
        self.norm = nn.RMSNorm(fine.width, eps)
        self.proj: nn.Module
        if kind == "linear":
            self.proj = Linear(self.factor * fine.width, coarse.width)
        else:
            same = fine.width == coarse.width
            self.proj = nn.Identity() if same else Linear(fine.width, coarse.width)
        if kind == "attention":
            self.q_proj = Linear(fine.width, coarse.width)
            self.kv_proj = Linear(fine.width, 2 * coarse.width)
            self.place_bias = nn.Parameter(torch.zeros(coarse.heads, self.factor))
            self.o_proj = Linear(coarse.width, coarse.width)

    def make_tapes(self) -> tuple[Tape, ...]:
        return (Tape(stride=self.fine.stride, width=self.fine.width, keep=self.factor, multiple=self.factor),)

    def forward(self, x_RTD: Tensor, fine: Span, coarse: Span, tapes: tuple[Tape, ...], batch: int) -> Tensor:
        """Units [Q, S, C] completed by the new finer units [R, T, D]; S may be 0."""
        tape = tapes[0] if tapes else None
        group = self._group(x_RTD, fine, coarse, tape) if coarse.size else None
        if tape is not None and fine.size:
            tape.reserve(fine, batch, x_RTD.dtype, x_RTD.device)
            tape.write(0, fine, x_RTD[:, :, None])
        if group is None:
            return x_RTD.new_zeros(0 if not coarse.even else len(x_RTD), 0, self.coarse.width)
        return self.pool(group).to(x_RTD.dtype)

    def _group(self, x_RTD: Tensor, fine: Span, coarse: Span, tape: Tape | None) -> Tensor:
        """Members of the groups that complete, [Q, S, k, D]."""
        k = self.factor
        if fine.even:
            unfinished, S = cast(int, fine.start) % k, coarse.size
            if tape is not None and unfinished:
                x_RTD = torch.cat((tape.recent(0, fine, unfinished)[0][:, :, 0], x_RTD[:, : S * k - unfinished]), 1)
            return x_RTD[:, : S * k].unflatten(1, (S, k))
        if tape is not None and tape.data is not None:
            x_RTD = torch.cat((tape.recent(0, fine, k)[0][:, :, 0], x_RTD), 1)
            before = k
        else:
            before = 0
        device = x_RTD.device
        rows = rows_within(fine, coarse)
        row = torch.from_numpy(np.arange(len(x_RTD))[rows]).to(device)
        first = coarse.starts(device) * k - fine.starts(device)[row] + before
        column = first + torch.arange(coarse.size * k, device=device)
        # a row with fewer units than S reads whatever its last columns hold; nothing looks at those units
        return x_RTD[row[:, None], column.clamp_(max=x_RTD.shape[1] - 1)].unflatten(1, (-1, k))

    def pool(self, group_QSkD: Tensor) -> Tensor:
        members = self.norm(group_QSkD)
        if self.kind == "linear":
            return self.proj(members.flatten(2))
        mean = members.mean(2)
        if self.kind == "mean":
            return self.proj(mean)
        H = self.coarse.heads
        q_NH1d = self.q_proj(mean).flatten(0, 1).unflatten(-1, (H, 1, -1))
        k_NHkd, v_NHkd = (
            part.flatten(0, 1).unflatten(-1, (H, -1)).transpose(1, 2) for part in self.kv_proj(members).chunk(2, -1)
        )
        bias = self.place_bias[:, None].to(q_NH1d.dtype)
        found = scaled_dot_product_attention(q_NH1d, k_NHkd, v_NHkd, attn_mask=bias)
        return self.proj(mean) + self.o_proj(found.flatten(1).unflatten(0, mean.shape[:2]))


class Expand(nn.Module):
    """Adds to each finer unit the newest unit complete at that position, a learned start before there is one.

    ``repeat`` adds one vector for the whole group, ``linear`` one per place in it, ``attention`` adds to ``repeat``
    what the finer stream finds in all complete units. Projections start at zero: a fresh model is its finer layers.
    The tape is the unit last shown, already projected; for ``attention`` keys and values of all units as well.
    """

    def __init__(self, move: spec.Expand, fine: spec.Level, coarse: spec.Level, kind: str, *, eps: float) -> None:
        super().__init__()
        self.factor, self.fine, self.coarse, self.kind = move.factor, fine, coarse, kind
        self.stride = move.stride
        self.places = self.factor if kind == "linear" else 1
        self.norm = nn.RMSNorm(coarse.width, eps)
        self.proj = Linear(coarse.width, self.places * fine.width)
        self.start = nn.Parameter(torch.zeros(self.places, fine.width))
        self.lookup = Lookup(fine, coarse, eps) if kind == "attention" else None

    def make_tapes(self) -> tuple[Tape, ...]:
        stride, fine = self.coarse.stride, self.fine
        shown = Tape(stride=stride, width=self.places * fine.width, keep=1)
        if self.lookup is None:
            return (shown,)
        return shown, Tape(stride=stride, width=fine.head_dim, heads=fine.heads, parts=2)

    def forward(
        self, x_RTD: Tensor, z_QSC: Tensor, fine: Span, coarse: Span, tapes: tuple[Tape, ...], batch: int
    ) -> Tensor:
        """The finer stream [R, T, D] with the coarser stream [Q, S, C] added."""
        shown = tapes[0] if tapes else None
        units = tapes[1] if len(tapes) > 1 else None
        z_QSC = self.norm(z_QSC) if coarse.size else z_QSC
        shown_QSPD = self.proj(z_QSC).unflatten(-1, (self.places, -1)) if coarse.size else None
        if fine.even:
            y_RTD = x_RTD + self._align_even(shown_QSPD, fine, coarse, shown, len(x_RTD))
        else:
            y_RTD = x_RTD + self._align_ragged(shown_QSPD, fine, coarse, shown, len(x_RTD))
        if shown is not None and shown_QSPD is not None:
            shown.reserve(coarse, batch, shown_QSPD.dtype, shown_QSPD.device)
            shown.write(0, coarse, shown_QSPD.flatten(2)[:, :, None])
        if self.lookup is not None:
            y_RTD = y_RTD + self.lookup(x_RTD, z_QSC, fine, coarse, self.factor, units, batch)
        return y_RTD

    def _align_even(self, shown_BSPD: Tensor | None, fine: Span, coarse: Span, tape: Tape | None, B: int) -> Tensor:
        k, T = self.factor, fine.size
        offset = cast(int, fine.start) % k + 1  # how far the first new position is past the unit before this call
        if coarse.start:
            assert tape is not None
            carry_B1PD = tape.recent(0, coarse, 1)[0][:, :, 0].unflatten(-1, (self.places, -1))
        else:
            carry_B1PD = self.start.expand(B, 1, -1, -1)
        if shown_BSPD is not None:
            carry_B1PD = torch.cat((carry_B1PD.to(shown_BSPD.dtype), shown_BSPD), 1)
        if self.places == 1:
            if T == 1:
                return carry_B1PD[:, -1]
            return carry_B1PD[:, :, 0].repeat_interleave(k, 1)[:, offset : offset + T]
        return carry_B1PD.flatten(1, 2)[:, offset : offset + T]

    def _align_ragged(self, shown_QSPD: Tensor | None, fine: Span, coarse: Span, tape: Tape | None, R: int) -> Tensor:
        k, device = self.factor, self.start.device
        newest = fine.starts(device) + torch.arange(fine.size, device=device) + 1
        units_before = fine.starts(device) // k
        carry_R1PD = self.start.expand(R, 1, -1, -1)
        if tape is not None and tape.data is not None:
            all_rows = Span(cast(np.ndarray, fine.start) // k, cast(np.ndarray, fine.count), fine.rows)
            last = tape.recent(0, all_rows, 1)[0][:, :, 0].unflatten(-1, (self.places, -1))
            carry_R1PD = torch.where((units_before > 0)[..., None, None], last, carry_R1PD.to(last.dtype))
        if shown_QSPD is not None:
            new_RSPD = shown_QSPD.new_zeros(R, *shown_QSPD.shape[1:])
            row = torch.from_numpy(np.arange(R)[rows_within(fine, coarse)]).to(device)
            carry_R1PD = torch.cat((carry_R1PD.to(new_RSPD.dtype), new_RSPD.index_copy(0, row, shown_QSPD)), 1)
        unit = (newest // k - units_before).clamp_(max=carry_R1PD.shape[1] - 1)
        place = newest % k if self.places > 1 else torch.zeros_like(newest)
        return carry_R1PD[torch.arange(R, device=device)[:, None], unit, place]


class Lookup(nn.Module):
    """Attention of the finer stream to all complete coarser units and to a learned one before them."""

    def __init__(self, fine: spec.Level, coarse: spec.Level, eps: float) -> None:
        super().__init__()
        self.heads, self.width = fine.heads, fine.width
        self.query_norm = nn.RMSNorm(fine.width, eps)
        self.q_proj = Linear(fine.width, fine.width)
        self.kv_proj = Linear(coarse.width, 2 * fine.width)
        self.o_proj = Linear(fine.width, fine.width)
        self.start_unit = nn.Parameter(torch.zeros(coarse.width))

    def forward(
        self, x_RTD: Tensor, z_QSC: Tensor, fine: Span, coarse: Span, k: int, tape: Tape | None, batch: int
    ) -> Tensor:
        R, device = len(x_RTD), x_RTD.device
        q_RTHd = self.q_proj(self.query_norm(x_RTD)).unflatten(-1, (self.heads, -1))
        start = tuple(
            part.unflatten(-1, (self.heads, 1, -1)).expand(R, -1, -1, -1)
            for part in self.kv_proj(self.start_unit).chunk(2)
        )
        new = tuple(part.unflatten(-1, (self.heads, -1)) for part in self.kv_proj(z_QSC).chunk(2, -1))
        if tape is not None and coarse.size:
            tape.reserve(coarse, batch, q_RTHd.dtype, q_RTHd.device)
            tape.write(0, coarse, *new)
        before = fine.start // k
        if fine.even and not before:
            units = tuple(part.transpose(1, 2) for part in new)
        elif np.any(before):
            assert tape is not None
            rows = Span(fine.start, fine.count, fine.rows)
            units = tape.read(0, rows, tape.capacity if not fine.even else cast(int, coarse.end))
        else:  # ragged, and no unit before: put the coarser rows back among the finer ones
            row = torch.from_numpy(np.arange(R)[rows_within(fine, coarse)]).to(device)
            units = tuple(part.new_zeros(R, *part.shape[1:]).index_copy(0, row, part).transpose(1, 2) for part in new)
        keys, values = (torch.cat((first.to(part.dtype), part), 2) for first, part in zip(start, units, strict=True))
        complete = (fine.positions(device) + 1) // k
        mask = torch.arange(keys.shape[2], device=device) <= complete[..., None]
        found = attend(q_RTHd, keys, values, mask=mask if fine.even else mask[:, None])
        return self.o_proj(found.flatten(2))
