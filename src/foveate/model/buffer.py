"""The state of one step of a walk: what later calls may still need of each row, in preallocated slots written in place.

Items are keys and values of a run, finer units of an unfinished group, or units last shown. ``Slots`` says where an
item lies. While gradients are wanted, what is written becomes part of the graph: a write then makes a new tensor.

Shape legend: N layers, P parts (2 for keys and values), B batch rows, H heads, C capacity in slots, d width of an
item, R rows of units, S new items, n items asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from foveate.model.clock import Count, Units
from foveate.model.slots import Slots

RESERVE = 64  # tokens; what keeps everything grows in multiples of this


class SlotMap(Protocol):
    """What a buffer asks of a map from items to slots."""

    @property
    def bound(self) -> int | None: ...
    def size(self, items: int) -> int: ...
    def of(self, position: Any) -> Any: ...
    def grown(self, need: int, capacity: int, room: int) -> int: ...
    def written(self, count: int) -> int: ...
    def with_slack(self, items: int) -> Any: ...
    def moves(self, items: int, to: Any) -> tuple[np.ndarray, np.ndarray]: ...
    def can_shorten(self, furthest: int, shorter: int) -> bool: ...


def allocate(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that may be written in place later, whatever the gradient mode is now and then."""
    with torch.inference_mode(False), torch.no_grad():
        return torch.zeros(shape, dtype=dtype, device=device)


@dataclass(frozen=True)
class Place:
    """Where the new items of a call go: columns to ranges of slots, or those from ``first`` on to rows [R, 1] and slots
    [R or 1, S]."""

    ranges: tuple[tuple[slice, slice], ...] = ()
    index: tuple[Tensor, Tensor] | None = None
    first: int = 0


def _kind(part: Tensor) -> tuple[Any, ...]:
    """What two tensors share of which one can take the other's content and no graph is lost."""
    return part.shape, part.dtype, part.device, part.requires_grad


class Buffer:
    """Items of one stream at ``stride`` tokens each, in the places that ``slots`` gives them."""

    def __init__(
        self, *, stride: int, width: int, heads: int = 1, layers: int = 1, parts: int = 1, slots: SlotMap | None = None
    ) -> None:
        self.stride, self.width, self.heads, self.layers, self.parts = stride, width, heads, layers, parts
        self.slots: Any = slots if slots is not None else Slots()
        self.capacity = 0
        self.live = False  # whether the call that is under way makes what it writes part of a graph
        self._spare = False  # whether one slot more takes what no row has
        self.room: int | None = None  # items of a row at most, where that was declared: nothing then moves again
        self._data: Tensor | None = None  # [N, P, B, H, C, d]; None if nothing is held, or while part of a graph
        self._layers: list[tuple[Tensor, ...]] = []

    def __getitem__(self, layer: int) -> tuple[Tensor, ...]:
        """The parts of one layer, each [B, H, C, d]."""
        return self._layers[layer]

    @property
    def empty(self) -> bool:
        return not self._layers

    @property
    def data(self) -> Tensor | None:
        """[N, P, B, H, C, d], or None."""
        if self._data is None and self._layers:
            return torch.stack([torch.stack(parts) for parts in self._layers])
        return self._data

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for parts in self._layers for part in parts)

    @property
    def in_graph(self) -> bool:
        return any(part.requires_grad for parts in self._layers for part in parts)

    @property
    def forgets(self) -> bool:
        """Whether items are overwritten, so that rows can only be cut back as far as slack allows."""
        return not isinstance(self.slots, Slots) or self.slots.keep is not None

    def _set(self, data: Tensor | None, spare: bool = False) -> None:
        before = self._layers
        self._data, self._spare = data, spare
        self.capacity = 0 if data is None else data.shape[4] - spare
        self._layers = [] if data is None else [layer.unbind(0) for layer in data.unbind(0)]
        if self.room is not None and data is not None and not data.requires_grad:
            self._stay(before)

    def _stay(self, before: list[tuple[Tensor, ...]]) -> None:
        """Keep every part as a tensor of its own, where it was ``before`` if it still fits: a compiler and CUDA graphs
        take neither views of one tensor, into which they write, nor new addresses."""
        self._data = None
        old = [part for parts in before for part in parts]
        new = [part for parts in self._layers for part in parts]
        with torch.inference_mode(False), torch.no_grad():
            if [_kind(part) for part in old] == [_kind(part) for part in new]:
                for kept, part in zip(old, new, strict=True):
                    kept.copy_(part)
                self._layers = before
            else:
                self._layers = [tuple(part.clone() for part in parts) for parts in self._layers]
        for part in (part for parts in self._layers for part in parts if part.device.type != "cpu"):
            # else CUDA graphs would not be recorded of what writes into it
            torch._dynamo.mark_static_address(part)

    def declare(self, items: int, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        """Take the memory for rows of up to ``items`` items at once."""
        self.room = items
        if self.empty:
            self._grow(self.slots.size(items), True, batch, dtype, device)

    def become(self, other: Buffer) -> None:
        """Hold a copy of what ``other`` holds."""
        self.slots = other.slots
        data = other.data
        with torch.inference_mode(False), torch.no_grad():
            self._set(None if data is None else data.clone(), other._spare)

    def clear(self) -> None:
        if self.room is None:
            self._set(None)

    def randomize(self) -> None:
        for parts in self._layers:
            for part in parts:
                part.normal_()

    def restore(self, data: Tensor | None) -> None:
        """Hold ``data`` [N, P, B, H, C, d], or nothing."""
        self._set(data)

    def used(self, items: int) -> Tensor | None:
        """What rows of up to ``items`` items fill of it, [N, P, B, H, c, d]: the rest is room to grow."""
        data = self.data
        return None if data is None else data[..., : min(self.slots.size(items), self.capacity), :]

    # room and places

    def reserve(self, units: Units, batch: int, dtype: torch.dtype, device: torch.device) -> Place:
        """Make room for the new items of ``units`` and say where they go. What is held takes on ``dtype``.

        Slots are zeros until written: what a mask hides must be finite.
        """
        need, overrun = self.slots.size(max(units.longest, self.room or 0)), units.size > self.slots.written(units.size)
        spare = self._spare or not (units.aligned and units.full) or bool(self.slots.pinned and overrun)
        if need > self.capacity or spare > self._spare:
            if need > self.capacity and self.room is None:
                need = self.slots.grown(need, self.capacity, -(-RESERVE // self.stride))
            self._grow(max(need, self.capacity), spare, batch, dtype, device)
        self._settle(dtype)
        return self._place(units, device)

    def _grow(self, capacity: int, spare: bool, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        old, held = self.data, self.capacity
        shape = (self.layers, self.parts, batch, self.heads, capacity + spare, self.width)
        data = allocate(shape, dtype if old is None else old.dtype, device)
        if old is not None:
            if old.requires_grad:
                data = data.slice_scatter(old[..., :held, :], 4, 0, held)
            else:
                data[..., :held, :] = old[..., :held, :]
        self._set(data, spare)

    def _settle(self, dtype: torch.dtype) -> None:
        """Before a call: of the dtype it computes in, and out of an earlier call's graph where none is made now."""
        if self._data is None and (self.live or self._is_settled(dtype)):
            return
        data = self.data
        if data is not None and data.dtype != dtype:
            data = data.to(dtype)
        if data is not None and not self.live and data.requires_grad:
            data = data.detach().clone()
        if data is not self._data:
            self._set(data, self._spare)

    def _is_settled(self, dtype: torch.dtype) -> bool:
        return not self._layers or (self._layers[0][0].dtype == dtype and not self.in_graph)

    def _place(self, units: Units, device: torch.device) -> Place:
        if units.aligned and units.full and units.rows is None:
            return Place(ranges=self._ranges(units.first, units.size))
        rows = units.row_index(device)
        if rows is None:
            rows = torch.arange(self._layers[0][0].shape[0], device=device)
        slot = self.slots.of(units.positions(device)).reshape(-1, units.size)
        written = self.slots.written(units.size)
        if units.full and not (self.slots.pinned and written < units.size):
            first = units.size - written
            return Place(index=(rows[:, None], slot[:, first:]), first=first)
        # columns that a row has not, and items that a ring would overwrite at once, go to the spare slot
        column, count_R1 = units.columns(device), units.counts(device)
        kept = (column >= count_R1 - written) | (units.positions(device) < self.slots.pinned)
        real = (column < count_R1) & kept
        return Place(index=(rows[:, None], torch.where(real, slot, self.capacity)))

    def _ranges(self, start: int, count: int) -> tuple[tuple[slice, slice], ...]:
        """Columns and slots of ``count`` items from ``start`` on, in runs of neighbouring slots."""
        slots, column = self.slots, count - self.slots.written(count)
        ranges = []
        if column and start < slots.pinned:
            pinned = min(slots.pinned - start, column)
            ranges.append((slice(0, pinned), slice(start, start + pinned)))
        while column < count:
            slot, ring = slots.of(start + column), slots.ring
            until = count if ring is None else min(count, column + slots.pinned + ring - slot)  # where the ring ends
            ranges.append((slice(column, until), slice(slot, slot + until - column)))
            column = until
        return tuple(ranges)

    # writing and reading

    def write(self, layer: int, place: Place, *parts: Tensor) -> None:
        """Store the new items, each part [R, S, H, d]."""
        written = tuple(
            self._written(buffer, place, new) for buffer, new in zip(self._layers[layer], parts, strict=True)
        )
        if self.live:
            self._layers[layer] = written

    def _written(self, buffer: Tensor, place: Place, new: Tensor) -> Tensor:
        new = new.to(buffer.dtype)
        if self.live:
            self._data = None
            if place.index is not None:
                return buffer.transpose(1, 2).index_put(place.index, new[:, place.first :]).transpose(1, 2)
            for columns, slots in place.ranges:
                buffer = buffer.slice_scatter(new[:, columns].transpose(1, 2), 2, slots.start, slots.stop)
            return buffer
        if place.index is not None:
            rows_R1, slot = place.index
            buffer[rows_R1, :, slot] = new[:, place.first :]
        for columns, slots in place.ranges:
            buffer[:, :, slots] = new[:, columns].transpose(1, 2)
        return buffer

    def gather(self, layer: int, units: Units, slot: Tensor) -> tuple[Tensor, ...]:
        """The items in ``slot`` [R or 1, n] of the rows of ``units``, each part [R, n, H, d]."""
        rows = units.row_index(slot.device)
        if len(slot) == 1 and rows is None:
            return tuple(part.index_select(2, slot[0]).transpose(1, 2) for part in self._layers[layer])
        if rows is None:
            rows = torch.arange(len(slot), device=slot.device)
        return tuple(part[rows[:, None], :, slot] for part in self._layers[layer])

    def recent(self, layer: int, units: Units, n: int) -> tuple[Tensor, ...]:
        """The ``n`` items before ``units``, oldest first, each part [R, n, H, d]; finite before a row's first."""
        if units.aligned and units.rows is None and units.first >= n:
            ranges = self._ranges(units.first - n, n)
            if len(ranges) == 1:
                return tuple(part[:, :, ranges[0][1]].transpose(1, 2) for part in self._layers[layer])
        device = self._layers[layer][0].device
        position = units.starts(device) + torch.arange(-n, 0, device=device)
        return self.gather(layer, units, self.slots.of(position.clamp_(min=0)))

    def read(self, layer: int, units: Units, slots: int) -> tuple[Tensor, ...]:
        """The first ``slots`` slots of the rows, each part [R, H, slots, d]; a view unless rows are left out."""
        parts = tuple(part[:, :, :slots] for part in self._layers[layer])
        rows = None if units.rows is None else units.row_index(parts[0].device)
        return parts if rows is None else tuple(part[rows] for part in parts)

    # what else can be done to a cache

    def set_slack(self, tokens: int, lengths: Count) -> None:
        """From now on let what forgets remember ``tokens`` more than its step needs, so that as many can be taken back.

        ``lengths`` [B] says what the rows hold, in tokens: what is held moves to its slot in the longer ring.
        """
        if not self.forgets:
            return
        before, self.slots = self.slots, self.slots.with_slack(-(-tokens // self.stride) + (tokens > 0))
        old = self.data
        if old is None:
            return
        items = np.atleast_1d(lengths) // self.stride
        size = max(self.slots.size(int(items.max())), self.capacity)
        data = allocate((*old.shape[:4], size, self.width), old.dtype, old.device)
        for row, count in enumerate(items):
            rows = slice(None) if len(items) == 1 else slice(row, row + 1)
            source, target = (torch.from_numpy(slots).to(old.device) for slots in before.moves(int(count), self.slots))
            moved = old[:, :, rows].index_select(4, source)
            if old.requires_grad:
                data = data.slice_scatter(data[:, :, rows].index_copy(4, target, moved), 2, rows.start, rows.stop)
            else:
                data[:, :, rows].index_copy_(4, target, moved)
        self._set(data)

    def can_shorten(self, furthest: Count, shorter: Count) -> bool:
        """Whether rows that once had ``furthest`` tokens can go on from ``shorter``: nothing needed is overwritten."""
        rows = np.broadcast_arrays(np.atleast_1d(furthest) // self.stride, np.atleast_1d(shorter) // self.stride)
        return all(self.slots.can_shorten(int(most), int(left)) for most, left in zip(*rows, strict=True))

    def take_rows(self, rows: Tensor) -> None:
        """Row i becomes the old row ``rows[i]``."""
        data = self.data
        if data is not None:
            with torch.inference_mode(False), torch.set_grad_enabled(data.requires_grad and torch.is_grad_enabled()):
                self._set(data.index_select(2, rows.to(data.device)), self._spare)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two buffers share whose rows can stand in one."""
        return (self.stride, self.width, self.heads, self.layers, self.parts, self.slots.with_slack(0))

    def append_rows(self, other: Buffer, batch: int, other_batch: int) -> None:
        """The rows of ``other``, a buffer of the same step, after these; a row keeps its slots."""
        own, more = self.data, other.data
        held = own if own is not None else more
        if held is None:
            return
        capacity = max(self.capacity, other.capacity)
        shape = (self.layers, self.parts, batch + other_batch, self.heads, capacity, self.width)
        data = allocate(shape, held.dtype, held.device)
        if own is not None:
            data[:, :, :batch, :, : self.capacity] = own[..., : self.capacity, :]
        if more is not None:
            data[:, :, batch:, :, : other.capacity] = more[..., : other.capacity, :]
        self._set(data)

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        data, twin._layers = self.data, []
        with torch.inference_mode(False), torch.set_grad_enabled(torch.is_grad_enabled()):
            twin._set(None if data is None else data.clone(), self._spare)
        return twin
