"""Moving between levels: pooling complete groups into units, expanding the newest complete unit onto a finer stream.

Shape legend: R rows of the finer level, Q rows of the coarser one (those in which a unit completes), T new finer units,
S new coarser units, k finer units per coarser one, D width finer, C width coarser, P places: vectors a unit expands to
(1 or k).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from foveate import spec
from foveate.backends import attend, compute_dtype
from foveate.model.attention import additive
from foveate.model.buffer import Buffer
from foveate.model.clock import Units
from foveate.model.slots import Slots


class Downsample(nn.Module):
    """Complete groups of k finer units to units. Its buffer is the unfinished group.

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
            self.proj = nn.Linear(self.factor * fine.width, coarse.width, bias=False)
        else:
            same = fine.width == coarse.width
            self.proj = nn.Identity() if same else nn.Linear(fine.width, coarse.width, bias=False)
        if kind == "attention":
            self.q_proj = nn.Linear(fine.width, coarse.width, bias=False)
            self.kv_proj = nn.Linear(fine.width, 2 * coarse.width, bias=False)
            self.place_bias = nn.Parameter(torch.zeros(coarse.heads, self.factor))
            self.o_proj = nn.Linear(coarse.width, coarse.width, bias=False)

    def make_buffers(self) -> tuple[Buffer, ...]:
        slots = Slots(keep=self.factor, multiple=self.factor)
        return (Buffer(stride=self.fine.stride, width=self.fine.width, slots=slots),)

    def forward(self, x_RTD: Tensor, fine: Units, coarse: Units, buffers: tuple[Buffer, ...], batch: int) -> Tensor:
        """Units [Q, S, C] completed by the new finer units [R, T, D]; S may be 0."""
        buffer = buffers[0] if buffers else None
        group = self._group(x_RTD, fine, coarse, buffer) if coarse.size else None
        if buffer is not None and fine.size:
            place = buffer.reserve(fine, batch, x_RTD.dtype, x_RTD.device)
            buffer.write(0, place, x_RTD[:, :, None])
        if group is None:
            return x_RTD.new_zeros(len(x_RTD) if coarse.rows is None else 0, 0, self.coarse.width)
        return self.pool(group).to(x_RTD.dtype)

    def _group(self, x_RTD: Tensor, fine: Units, coarse: Units, buffer: Buffer | None) -> Tensor:
        """Members of the groups that complete, [Q, S, k, D]."""
        k, S, device = self.factor, coarse.size, x_RTD.device
        if fine.indices is not None:
            column = fine.indices.on(device)["members", self.fine.stride, self.coarse.stride]
            return x_RTD[torch.arange(len(column), device=device)[:, None], column].unflatten(1, (S, k))
        row_Q = coarse.rows_within_finer(device)
        if fine.aligned:
            unfinished = fine.first % k
            if unfinished:
                assert buffer is not None
                x_RTD = torch.cat((buffer.recent(0, fine, unfinished)[0][:, :, 0].to(x_RTD.dtype), x_RTD), 1)
            x_RTD = x_RTD if row_Q is None else x_RTD[row_Q]
            return x_RTD[:, : S * k].unflatten(1, (S, k))
        assert buffer is not None
        x_RTD = torch.cat((buffer.recent(0, fine, k)[0][:, :, 0].to(x_RTD.dtype), x_RTD), 1)
        row_Q = torch.arange(len(x_RTD), device=device) if row_Q is None else row_Q
        first = coarse.starts(device) * k - fine.starts(device)[row_Q] + k
        # a row with fewer units than S reads whatever its last columns hold; nothing looks at those units
        column = (first + torch.arange(S * k, device=device)).clamp_(max=x_RTD.shape[1] - 1)
        return x_RTD[row_Q[:, None], column].unflatten(1, (-1, k))

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


class Upsample(nn.Module):
    """The newest complete coarser unit added to the finer stream, a learned start before there is one.

    The unit completed by position t is first added at t, where it may help to predict t + 1. ``repeat`` adds the same
    vector until the next unit completes, ``linear`` one for each place after it, ``attention`` adds to the repeated one
    what the finer stream finds in all complete units. Projections start at zero: a fresh model is its finer layers.
    The buffer is the unit last shown, already projected; for ``attention`` keys and values of all units as well.
    """

    def __init__(self, move: spec.Expand, fine: spec.Level, coarse: spec.Level, kind: str, *, eps: float) -> None:
        super().__init__()
        self.factor, self.fine, self.coarse, self.kind = move.factor, fine, coarse, kind
        self.stride = move.stride
        self.places = self.factor if kind == "linear" else 1
        self.norm = nn.RMSNorm(coarse.width, eps)
        self.proj = nn.Linear(coarse.width, self.places * fine.width, bias=False)
        self.start = nn.Parameter(torch.zeros(self.places, fine.width))
        self.lookup = Lookup(fine, coarse, eps) if kind == "attention" else None

    def make_buffers(self) -> tuple[Buffer, ...]:
        stride, fine = self.coarse.stride, self.fine
        shown = Buffer(stride=stride, width=self.places * fine.width, slots=Slots(keep=1))
        if self.lookup is None:
            return (shown,)
        return shown, Buffer(stride=stride, width=fine.width // fine.heads, heads=fine.heads, parts=2)

    def forward(
        self, x_RTD: Tensor, z_QSC: Tensor, fine: Units, coarse: Units, buffers: tuple[Buffer, ...], batch: int
    ) -> Tensor:
        """The finer stream [R, T, D] with the coarser stream [Q, S, C] added."""
        buffer = buffers[0] if buffers else None
        z_QSC = self.norm(z_QSC) if coarse.size else z_QSC
        new_QSPD = self.proj(z_QSC).unflatten(-1, (self.places, -1)) if coarse.size else None
        y_RTD = x_RTD + self._shown(new_QSPD, fine, coarse, buffer, len(x_RTD))
        if buffer is not None and new_QSPD is not None:
            place = buffer.reserve(coarse, batch, new_QSPD.dtype, new_QSPD.device)
            buffer.write(0, place, new_QSPD.flatten(2)[:, :, None])
        if self.lookup is not None:
            keys = buffers[1] if len(buffers) > 1 else None
            y_RTD = y_RTD + self.lookup(x_RTD, z_QSC, fine, coarse, self.factor, keys, batch)
        return y_RTD

    def _shown(self, new_QSPD: Tensor | None, fine: Units, coarse: Units, buffer: Buffer | None, R: int) -> Tensor:
        """What each finer unit is shown, [R or 1, T, D]."""
        k, T, device = self.factor, fine.size, self.start.device
        if fine.indices is not None:
            after, _, past = fine.indices.on(device)["shown", self.coarse.stride, self.fine.stride]
            return self._at(self._with_new(self.start.expand(R, 1, -1, -1), new_QSPD, coarse), after, past)
        if not fine.aligned:
            shown_RSPD = self._with_new(self._last(fine, buffer, R), new_QSPD, coarse)
            newest = fine.positions(device) + 1
            unit = (newest // k - fine.starts(device) // k).clamp_(max=shown_RSPD.shape[1] - 1)
            return self._at(shown_RSPD, unit, newest % k)
        shown_RSPD = self._with_new(self._last(fine, buffer, R), new_QSPD, coarse)
        offset = fine.first % k + 1  # how far the first new position is past the unit before this call
        if self.places > 1:
            return shown_RSPD.flatten(1, 2)[:, offset : offset + T]
        if T == 1:
            return shown_RSPD[:, -1]
        return shown_RSPD[:, :, 0].repeat_interleave(k, 1)[:, offset : offset + T]

    def _last(self, fine: Units, buffer: Buffer | None, R: int) -> Tensor:
        """The unit each row was shown last, [R, 1, P, D]."""
        start_R1PD = self.start.expand(R, 1, -1, -1)
        before = fine.held(self.factor)
        if buffer is None or buffer.empty or before.fresh:
            return start_R1PD
        last_R1PD = buffer.recent(0, before, 1)[0][:, :, 0].unflatten(-1, (self.places, -1))
        if fine.aligned:
            return last_R1PD
        known = fine.starts(self.start.device) >= self.factor
        return torch.where(known[..., None, None], last_R1PD, start_R1PD.to(last_R1PD.dtype))

    def _with_new(self, last_R1PD: Tensor, new_QSPD: Tensor | None, coarse: Units) -> Tensor:
        """The unit shown last and the new ones after it, [R, 1 + S, P, D]."""
        if new_QSPD is None:
            return last_R1PD
        return torch.cat((last_R1PD.to(new_QSPD.dtype), _in_rows_of_finer(coarse, new_QSPD, len(last_R1PD))), 1)

    def _at(self, shown_RSPD: Tensor, unit_RT: Tensor, past_RT: Tensor) -> Tensor:
        row = torch.arange(len(shown_RSPD), device=unit_RT.device)[:, None]
        return shown_RSPD[row, unit_RT, past_RT if self.places > 1 else torch.zeros_like(past_RT)]


class Lookup(nn.Module):
    """Attention of the finer stream to all complete coarser units and to a learned one before them."""

    def __init__(self, fine: spec.Level, coarse: spec.Level, eps: float) -> None:
        super().__init__()
        self.heads, self.width = fine.heads, fine.width
        self.index = ("shown", coarse.stride, fine.stride)  # of documents in packed rows
        self.query_norm = nn.RMSNorm(fine.width, eps)
        self.q_proj = nn.Linear(fine.width, fine.width, bias=False)
        self.kv_proj = nn.Linear(coarse.width, 2 * fine.width, bias=False)
        self.o_proj = nn.Linear(fine.width, fine.width, bias=False)
        self.start_unit = nn.Parameter(torch.zeros(coarse.width))

    def forward(
        self, x_RTD: Tensor, z_QSC: Tensor, fine: Units, coarse: Units, k: int, buffer: Buffer | None, batch: int
    ) -> Tensor:
        R = len(x_RTD)
        q_RTHd = self.q_proj(self.query_norm(x_RTD)).unflatten(-1, (self.heads, -1))
        start = tuple(
            part.unflatten(-1, (self.heads, 1, -1)).expand(R, -1, -1, -1)
            for part in self.kv_proj(self.start_unit).chunk(2)
        )
        new = tuple(part.unflatten(-1, (self.heads, -1)) for part in self.kv_proj(z_QSC).chunk(2, -1))
        if buffer is not None and coarse.size:
            buffer.write(0, buffer.reserve(coarse, batch, q_RTHd.dtype, q_RTHd.device), *new)
        before = fine.held(k)
        if before.fresh:
            units = tuple(_in_rows_of_finer(coarse, part, R).transpose(1, 2) for part in new)
        else:
            assert buffer is not None
            held = before.first + coarse.size if fine.aligned else buffer.capacity
            units = buffer.read(0, before, min(held, buffer.capacity))
        keys, values = (torch.cat((first.to(part.dtype), part), 2) for first, part in zip(start, units, strict=True))
        mask = additive(self._visible(keys.shape[2], fine, coarse, k), compute_dtype(x_RTD))
        return self.o_proj(attend(q_RTHd, keys, values, mask=mask).flatten(2))

    def _visible(self, L: int, fine: Units, coarse: Units, k: int) -> Tensor:
        """[R or 1, 1, T, L]; the learned unit is the first."""
        device = self.start_unit.device
        unit = torch.arange(L, device=device)
        if fine.indices is not None:
            after, first, _ = fine.indices.on(device)[self.index][:, :, None, :, None]
            return (unit == 0) | ((unit >= first) & (unit <= after))
        visible = unit <= ((fine.positions(device) + 1) // k)[..., None]
        return visible[None, None] if fine.aligned else visible[:, None]


def _in_rows_of_finer(coarse: Units, new_QS: Tensor, R: int) -> Tensor:
    """What is new at the coarser level, [Q, S, …], among the R rows of the finer one, [R, S, …]."""
    row_Q = coarse.rows_within_finer(new_QS.device)
    return new_QS if row_Q is None else new_QS.new_zeros(R, *new_QS.shape[1:]).index_copy(0, row_Q, new_QS)
