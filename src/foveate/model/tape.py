"""A tape: the items of one stream that later calls may still need, per row, in preallocated slots written in place.

Items are keys and values of a run, finer units of an unfinished group, or units last shown. The slot of an item follows
from its position in its own row; a tape that needs only its last items is a ring.

Shape legend: N layers, P parts (2 for keys and values), B batch rows, H heads, C capacity in slots, d width of an item,
R rows of a span, S new items, n items asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from foveate.model.clock import Count, Span

RESERVE = 64  # tokens; a tape that keeps everything grows in multiples of this


def allocate(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that may be written in place later, whatever the gradient mode is now and then."""
    with torch.inference_mode(False), torch.no_grad():
        return torch.zeros(shape, dtype=dtype, device=device)


class Tape:
    """Items of one stream at ``stride`` tokens each: all of them, or (``keep``) those a later step may still need.

    ``multiple`` rounds a ring's slots up, so that a group of that many items never wraps around its end.
    """

    def __init__(
        self,
        *,
        stride: int,
        width: int,
        heads: int = 1,
        keep: int | None = None,
        layers: int = 1,
        parts: int = 1,
        multiple: int = 1,
    ) -> None:
        self.stride = stride
        self.width = width
        self.heads = heads
        self.keep = keep
        self.layers = layers
        self.parts = parts
        self.multiple = multiple
        self.ring: int | None = keep  # slots after which positions start over
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

    @property
    def bounded(self) -> bool:
        """Whether the slots needed stop growing with the rows."""
        return self.ring is not None

    def slots_needed(self, items: int) -> int:
        """Slots for rows of up to ``items`` items."""
        return items if self.ring is None else self.ring

    def _set(self, data: Tensor | None) -> None:
        self.data = data
        self._views = [] if data is None else [layer.unbind(0) for layer in data.unbind(0)]

    def clear(self) -> None:
        self._set(None)

    def restore(self, data: Tensor | None) -> None:
        """Hold ``data`` [N, P, B, H, C, d], or nothing."""
        self._set(data)
        self.shortened()

    def reserve(self, span: Span, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        """Make room for the items of ``span``. Slots are zeros until written: what a mask hides must be finite."""
        need = self.slots_needed(span.longest)
        if need <= self.capacity:
            return
        if not self.bounded:
            room = -(-RESERVE // self.stride)
            need = -(-max(need + room, self.capacity * 3 // 2) // room) * room
        data = allocate((self.layers, self.parts, batch, self.heads, need, self.width), dtype, device)
        if self.data is not None:
            data[..., : self.capacity, :] = self.data
        self._set(data)

    def write(self, layer: int, span: Span, *parts: Tensor) -> None:
        """Store the new items, each part [R, S, H, d]."""
        for buffer, new in zip(self._views[layer], parts, strict=True):
            new = new.detach()
            if span.even:
                self._write_even(buffer, cast(int, span.start), cast(int, span.end), new)
            else:
                row, column, batch_row, slot = span.slots(self.ring, new.device)
                buffer[batch_row, :, slot] = new[row, column].to(buffer.dtype)

    def _write_even(self, buffer: Tensor, start: int, end: int, new: Tensor) -> None:
        ring = self.ring
        if ring is None:
            buffer[:, :, start:end] = new.transpose(1, 2)
            return
        start = max(start, end - ring)
        new = new[:, new.shape[1] - (end - start) :].transpose(1, 2)
        slot = start % ring
        before_wrap = min(end - start, ring - slot)
        buffer[:, :, slot : slot + before_wrap] = new[:, :, :before_wrap]
        if before_wrap < end - start:
            buffer[:, :, : end - start - before_wrap] = new[:, :, before_wrap:]

    def put(
        self, layer: int, span: Span, parts: tuple[Tensor, ...], row: np.ndarray, column: np.ndarray, slot: np.ndarray
    ) -> None:
        """Store items ``parts[row, column]`` of [R, ·, H, d] in ``slot``; all rows at once if they are alike."""
        for buffer, new in zip(self._views[layer], parts, strict=True):
            to, of = (torch.from_numpy(index).to(new.device) for index in (slot, column))
            new = new.detach().to(buffer.dtype)
            if span.even:
                buffer.index_copy_(2, to, new.index_select(1, of).transpose(1, 2))
            else:
                batch_row = row if span.rows is None else span.rows[row]
                buffer[torch.from_numpy(batch_row).to(new.device), :, to] = new[
                    torch.from_numpy(row).to(new.device), of
                ]

    def gather(self, layer: int, span: Span, slot: np.ndarray) -> tuple[Tensor, ...]:
        """The items in ``slot`` [R, n] ([1, n] of a span with rows alike), each part [R, n, H, d]."""
        index = torch.from_numpy(slot).to(self._views[layer][0].device)
        if span.even:
            return tuple(part.index_select(2, index[0]).transpose(1, 2) for part in self._views[layer])
        rows = span.row_index(index.device)
        rows = torch.arange(len(index), device=index.device) if rows is None else rows
        return tuple(part[rows[:, None], :, index] for part in self._views[layer])

    def recent(self, layer: int, span: Span, n: int) -> tuple[Tensor, ...]:
        """The ``n`` items before ``span``, oldest first, each part [R, n, H, d]; finite before a row's first."""
        first = cast(int, span.start) - n if span.even else -1
        if first >= 0 and (self.ring is None or first % self.ring + n <= self.ring):
            first = first if self.ring is None else first % self.ring
            return tuple(part[:, :, first : first + n].transpose(1, 2) for part in self._views[layer])
        slot = np.atleast_1d(span.start)[:, None] + np.arange(-n, 0)
        return self.gather(layer, span, slot.clip(min=0) if self.ring is None else slot % self.ring)

    def read(self, layer: int, span: Span, slots: int) -> tuple[Tensor, ...]:
        """The first ``slots`` slots of the span's rows, each part [R, H, slots, d]; a view unless rows are left out."""
        parts = (part[:, :, :slots] for part in self._views[layer])
        rows = None if span.rows is None else span.row_index(self._views[layer][0].device)
        return tuple(parts) if rows is None else tuple(part[rows] for part in parts)

    def slot_positions(self, span: Span, device: torch.device) -> Tensor:
        """The position each slot of a ring holds after ``span``, negative if none; [R, C], [1, C] if rows are alike."""
        assert self.ring is not None
        last = torch.from_numpy(np.atleast_1d(span.end) - 1).to(device)[:, None]
        return last - (last - torch.arange(self.ring, device=device)) % self.ring

    @property
    def forgets(self) -> bool:
        """Whether items are overwritten, so that rows can only be cut back as far as ``set_slack`` allows."""
        return self.keep is not None

    def set_slack(self, tokens: int, lengths: Count) -> None:
        """Let a ring remember ``tokens`` more than its steps need, from now on, so that as many can be taken back.

        ``lengths`` [B] says what the rows hold, in tokens: what is held moves to its slot in the longer ring.
        """
        if self.keep is None:
            return
        before = self.keep if self.ring is None else self.ring
        needed = self.keep + -(-tokens // self.stride) + (tokens > 0)
        ring = self.ring = -(-needed // self.multiple) * self.multiple

        def move(items: int) -> tuple[np.ndarray, np.ndarray]:
            held = np.arange(max(items - before, 0), items)
            return held % before, held % ring

        self._move_slots(lengths, move)

    def _move_slots(self, lengths: Count, move: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> None:
        """Copy each row to larger data, from and to the slots that ``move`` says for its number of items."""
        if self.data is None:
            return
        old, items = self.data, np.atleast_1d(lengths) // self.stride
        size = max(self.slots_needed(int(items.max())), self.capacity)
        data = allocate((*old.shape[:4], size, self.width), old.dtype, old.device)
        for row, count in enumerate(items):
            rows = slice(None) if len(items) == 1 else slice(row, row + 1)
            source, target = (torch.from_numpy(slots).to(old.device) for slots in move(int(count)))
            data[:, :, rows].index_copy_(4, target, old[:, :, rows].index_select(4, source))
        self._set(data)

    def can_shorten(self, furthest: Count, shorter: Count) -> bool:
        """Whether rows that once had ``furthest`` tokens can go on from ``shorter``: nothing needed is overwritten."""
        if self.keep is None or self.ring is None:
            return True
        oldest_held = np.maximum(np.asarray(furthest) // self.stride - self.ring, 0)
        # the next item pushes the oldest of several out anyway
        oldest_needed = np.maximum(np.asarray(shorter) // self.stride - self.keep + (self.keep > 1), 0)
        return bool(np.all(oldest_held <= oldest_needed))

    def shortened(self) -> None:
        """The rows were cut or copied: drop what was derived from their lengths."""

    def take_rows(self, rows: Tensor) -> None:
        if self.data is not None:
            with torch.inference_mode(False), torch.no_grad():
                self._set(self.data.index_select(2, rows.to(self.data.device)))

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two tapes share whose rows can stand in one."""
        return (type(self), self.stride, self.width, self.heads, self.keep, self.layers, self.parts)

    def append_rows(self, other: Tape, batch: int, other_batch: int) -> None:
        """The rows of ``other``, a tape of the same step, after these; a row keeps its slots."""
        held = self.data if self.data is not None else other.data
        if held is None:
            return
        capacity = max(self.capacity, other.capacity)
        data = allocate(
            (self.layers, self.parts, batch + other_batch, self.heads, capacity, self.width), held.dtype, held.device
        )
        for tape, rows in ((self, slice(0, batch)), (other, slice(batch, None))):
            if tape.data is not None:
                data[:, :, rows, :, : tape.capacity] = tape.data
        self._set(data)
        self.shortened()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tape:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        with torch.inference_mode(False), torch.no_grad():
            twin._set(None if self.data is None else self.data.clone())
        twin.shortened()
        return twin
