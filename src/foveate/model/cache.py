"""What a model remembers of its batch: one tape per step, and how many tokens each row has read.

A tape is a preallocated buffer of per-row items (keys and values, unfinished groups, units last shown), written in
place at slots that follow from a row's own position. A tape that needs only its last items is a ring.

Shape legend: N layers, P parts (2 for keys and values), B batch rows, H heads, C capacity in slots, d width of an item,
R rows of a span, S new items.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from foveate.errors import FoveateError
from foveate.model.clock import Clock, Count, Span

GRANULE = 64  # slots; a tape that keeps everything grows in multiples of this


class Tape:
    """Items of one stream at ``stride`` tokens each: all of them, or (``keep``) those a later step may still need.

    ``multiple`` rounds a ring's slots up, so that a group of that many items never wraps around its end.
    """

    def __init__(
        self, *, stride: int, keep: int | None = None, layers: int = 1, parts: int = 1, multiple: int = 1
    ) -> None:
        self.stride = stride
        self.keep = keep
        self.layers = layers
        self.parts = parts
        self.multiple = multiple
        self.ring: int | None = keep
        self.data: Tensor | None = None  # [N, P, B, H, C, d]
        self._views: list[tuple[Tensor, ...]] = []

    def __getitem__(self, layer: int) -> tuple[Tensor, ...]:
        """The parts of one layer, each [B, H, C, d]."""
        return self._views[layer]

    @property
    def capacity(self) -> int:
        return 0 if self.data is None else self.data.shape[4]

    @property
    def nbytes(self) -> int:
        return 0 if self.data is None else self.data.nbytes

    def _set(self, data: Tensor | None) -> None:
        self.data = data
        self._views = [] if data is None else [layer.unbind(0) for layer in data.unbind(0)]

    def reserve(self, span: Span, batch: int, heads: int, width: int, like: Tensor) -> None:
        """Make room for the items of ``span``. Slots are zeros until written: what a mask hides must be finite."""
        need = self.ring if self.ring is not None else span.longest
        if need <= self.capacity:
            return
        if self.ring is None:
            need = -(-max(need + GRANULE, self.capacity * 3 // 2) // GRANULE) * GRANULE
        data = like.new_zeros((self.layers, self.parts, batch, heads, need, width))
        if self.data is not None:
            data[..., : self.capacity, :] = self.data
        self._set(data)

    def write(self, layer: int, span: Span, *parts: Tensor) -> None:
        """Store the new items, each part [R, S, H, d]."""
        for buffer, new in zip(self._views[layer], parts, strict=True):
            new = new.detach()
            if not span.even:
                row, column, batch_row, slot = span.slots(self.ring, new.device)
                buffer[batch_row, :, slot] = new[row, column].to(buffer.dtype)
                continue
            start, end, ring = cast(int, span.start), cast(int, span.end), self.ring
            if ring is None:
                buffer[:, :, start:end] = new.transpose(1, 2)
                continue
            start = max(start, end - ring)
            new = new[:, new.shape[1] - (end - start) :].transpose(1, 2)
            slot = start % ring
            before_wrap = min(end - start, ring - slot)
            buffer[:, :, slot : slot + before_wrap] = new[:, :, :before_wrap]
            if before_wrap < end - start:
                buffer[:, :, : end - start - before_wrap] = new[:, :, before_wrap:]

    def recent(self, layer: int, span: Span, n: int) -> tuple[Tensor, ...]:
        """The ``n`` items before ``span``, oldest first, each part [R, H, n, d]; before a row's first: any finite value."""
        if self.data is None:
            raise AssertionError("nothing was written to this tape")
        device, ring = self.data.device, self.ring
        if span.even:
            start = cast(int, span.start)
            first = (start - n) % ring if ring is not None else start - n
            if 0 <= first and first + n <= self.capacity:
                return tuple(part[:, :, first : first + n] for part in self._views[layer])
            slots = torch.arange(start - n, start, device=device)
            slots = slots % ring if ring is not None else slots.clamp_(min=0)
            return tuple(part.index_select(2, slots) for part in self._views[layer])
        slots = span.starts(device) + torch.arange(-n, 0, device=device)
        slots = slots % ring if ring is not None else slots.clamp_(min=0)
        rows = span.row_index(device)
        rows = torch.arange(len(slots), device=device) if rows is None else rows
        return tuple(part[rows[:, None], :, slots].transpose(1, 2) for part in self._views[layer])

    def read(self, layer: int, span: Span, slots: int) -> tuple[Tensor, ...]:
        """The first ``slots`` slots of the span's rows, each part [R, H, slots, d]; a view unless rows are left out."""
        parts = (part[:, :, :slots] for part in self._views[layer])
        rows = None if span.rows is None else span.row_index(self._views[layer][0].device)
        return tuple(parts) if rows is None else tuple(part[rows] for part in parts)

    def slot_positions(self, span: Span, device: torch.device) -> Tensor:
        """After ``span`` is written: the position each slot of a ring holds, negative if none; [C] if even, else [R, C]."""
        assert self.ring is not None
        last = (
            span.positions(device)[-1:]
            if span.even
            else span.starts(device) + torch.from_numpy(cast(np.ndarray, span.count)).to(device)[:, None] - 1
        )
        return last - (last - torch.arange(self.ring, device=device)) % self.ring

    def set_slack(self, tokens: int, longest: int) -> None:
        """Let the ring remember ``tokens`` more than its steps need, so that as many can be taken back."""
        if self.keep is None:
            return
        ring = self.keep + -(-tokens // self.stride) + (tokens > 0)
        ring = -(-ring // self.multiple) * self.multiple
        old, held = self.ring, min(self.ring or 0, longest // self.stride)
        self.ring = ring
        if self.data is None or ring == old:
            return
        if ring < self.capacity:
            raise FoveateError(f"the cache already remembers {old} units; it cannot be cut to {ring}")
        assert old is not None
        data = self.data.new_zeros((*self.data.shape[:4], ring, self.data.shape[5]))
        positions = torch.arange(longest // self.stride - held, longest // self.stride, device=data.device)
        data[..., positions % ring, :] = self.data[..., positions % old, :]
        self._set(data)

    def take_rows(self, rows: Tensor) -> None:
        if self.data is not None:
            self._set(self.data.index_select(2, rows.to(self.data.device)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tape:
        twin = Tape(stride=self.stride, keep=self.keep, layers=self.layers, parts=self.parts, multiple=self.multiple)
        twin.ring = self.ring
        twin._set(None if self.data is None else self.data.clone())
        return twin


class StepCache:
    """All tapes of a batch of sequences, passed into a forward and written by it; no module holds one.

    ``lengths`` counts real tokens: an int while all rows are alike, else int64 [B].
    """

    def __init__(self, steps: list[tuple[Tape, ...]], batch: int) -> None:
        self.steps = steps
        self.batch = batch
        self.lengths: Count = 0
        self._furthest: Count = 0  # the longest each row has been: what a ring has overwritten follows from it
        self.slack = 0

    def clock(self, counts: Count) -> Clock:
        return Clock(self.lengths, counts)

    def advance(self, counts: Count) -> None:
        """Count the tokens of a finished call; until then a failed call can be repeated."""
        if isinstance(counts, int) and isinstance(self.lengths, int) and self.lengths == self._furthest:
            self.lengths = self._furthest = self.lengths + counts
            return
        self.lengths = _alike(self.lengths + counts)
        self._furthest = _alike(np.maximum(self._furthest, self.lengths))

    @property
    def tapes(self) -> list[Tape]:
        return [tape for tapes in self.steps for tape in tapes]

    @property
    def longest(self) -> int:
        return int(np.max(self.lengths))

    @property
    def nbytes(self) -> int:
        """Bytes held, capacity included."""
        return sum(tape.nbytes for tape in self.tapes)

    def reset(self) -> None:
        """Forget everything, and free the memory."""
        for tape in self.tapes:
            tape._set(None)
        self.lengths = self._furthest = 0

    def record_past(self, tokens: int) -> None:
        """From now on keep enough to take the last ``tokens`` tokens back with ``remove_last``."""
        if tokens <= self.slack:
            return
        if not isinstance(self.lengths, int) or np.any(self._furthest != self.lengths):
            if any(tape.data is not None and tape.keep is not None for tape in self.tapes):
                raise FoveateError("ask for record_past before rows of different lengths are read")
        for tape in self.tapes:
            tape.set_slack(tokens, self.longest)
        self.slack = tokens

    def remove_last(self, tokens: int) -> None:
        """Take the last ``tokens`` tokens of every row back.

        Raises:
            FoveateError: if a row is shorter, or a ring has overwritten what the shorter sequence would need.
        """
        if tokens == 0:
            return
        shorter = self.lengths - tokens
        if tokens < 0 or np.any(np.less(shorter, 0)):
            raise FoveateError(
                f"cannot remove {tokens} tokens from a cache whose shortest row has {np.min(self.lengths)}"
            )
        for tape in self.tapes:
            if tape.keep is None or tape.ring is None:
                continue
            oldest_held = np.maximum(self._furthest // tape.stride - tape.ring, 0)
            oldest_needed = np.maximum(shorter // tape.stride - tape.keep + (tape.keep > 1), 0)
            if np.any(oldest_held > oldest_needed):
                raise FoveateError(
                    f"cannot remove {tokens} tokens: this cache remembers enough to take {self.slack} back; "
                    f"call record_past({tokens}) on it before reading on"
                )
        self.lengths = _alike(shorter)

    def take_rows(self, rows: Tensor) -> None:
        """Row i becomes the old row ``rows[i]``; rows may repeat or be left out."""
        for tape in self.tapes:
            tape.take_rows(rows)
        index = rows.detach().cpu().numpy()
        if not isinstance(self.lengths, int):
            self.lengths = _alike(self.lengths[index])
        if not isinstance(self._furthest, int):
            self._furthest = _alike(self._furthest[index])
        self.batch = len(index)


def _alike(lengths: Any) -> Count:
    """An int if every row has the same value."""
    if isinstance(lengths, np.ndarray) and lengths.ndim and (lengths != lengths[0]).any():
        return lengths
    return int(np.max(lengths)) if not isinstance(lengths, int) else lengths
