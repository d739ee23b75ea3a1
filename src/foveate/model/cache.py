"""What a model remembers of its batch: the buffers of all steps, and how many tokens each row has read.

Shape legend: B batch rows.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from foveate.errors import FoveateError
from foveate.model.buffer import Buffer
from foveate.model.clock import Clock, Count


class StepCache:
    """All buffers of a batch of sequences, passed into a forward and written by it; no module holds one.

    ``lengths`` counts real tokens: an int while all rows are alike, else int64 [B]. Where ``max_length`` is declared,
    rows are never longer, and all memory is taken by the first call.
    """

    def __init__(self, steps: list[tuple[Buffer, ...]], batch: int, max_length: int | None = None) -> None:
        if max_length is not None and max_length < 1:
            raise FoveateError(f"max_length is {max_length}; a cache must have room for at least 1 token")
        self.steps = steps
        self.batch = batch
        self.max_length = max_length
        self.compiled = True  # whether steps with it are, where a decoder has them compiled
        self._on_device: tuple[Tensor, Count] | None = None  # lengths, at one address, and what they say
        self.lengths: Count = 0
        self._furthest: Count = 0  # the longest each row has been: what a ring has overwritten follows from it
        self._floor: Count = 0  # what rings had overwritten when they began to remember more: rows stay as long
        self.slack = 0
        self._unfinished = False

    # a cache of declared length

    def check_room(self, counts: Count) -> None:
        """Raises FoveateError if ``counts`` more tokens are more than were declared."""
        longest = int(np.max(self.lengths + counts))
        if self.max_length is not None and longest > self.max_length:
            raise FoveateError(
                f"the cache was made for {self.max_length} tokens and a row would have {longest}; "
                f"make it with a larger max_length"
            )

    def allocate(self, dtype: torch.dtype, device: torch.device) -> None:
        """Take the memory of what was declared, where that is still to be done."""
        for buffer in self.buffers:
            if buffer.room is None:
                assert self.max_length is not None
                buffer.declare(self.max_length // buffer.stride, self.batch, dtype, device)

    def lengths_on(self, device: torch.device) -> Tensor:
        """``lengths`` [B] on the device, always in the same tensor; uploaded only if other calls have changed them."""
        if self._on_device is None or len(self._on_device[0]) != self.batch or self._on_device[0].device != device:
            with torch.inference_mode(False):
                self._on_device = torch.zeros(self.batch, dtype=torch.int64, device=device), 0
        lengths_B, told = self._on_device
        if not np.array_equal(self.lengths, told):
            if isinstance(self.lengths, int):
                lengths_B.fill_(self.lengths)
            else:
                lengths_B.copy_(torch.from_numpy(self.lengths), non_blocking=True)
            self._on_device = lengths_B, self.lengths
        return lengths_B

    def advance_step(self) -> None:
        """Count one more token of every row, where ``lengths_on`` says it, too."""
        assert self._on_device is not None
        self.advance(1)
        self._on_device = self._on_device[0].add_(1), self.lengths

    def begin(self, live: bool) -> None:
        """Before buffers are written; ``live``: as part of a graph, for gradients to go through.

        A call that failed half-way has left some of them ahead of others.
        """
        if self._unfinished:
            raise FoveateError("an earlier call with this cache failed and left it half written; begin a new cache")
        self._unfinished = True
        for buffer in self.buffers:
            buffer.live = live

    def advance(self, counts: Count) -> None:
        """Count the tokens of a finished call."""
        self._unfinished = False
        if isinstance(counts, int) and isinstance(self.lengths, int) and self.lengths == self._furthest:
            self.lengths = self._furthest = self.lengths + counts
            return
        self.lengths = _alike(self.lengths + counts)
        self._furthest = _alike(np.maximum(self._furthest, self.lengths))

    @property
    def buffers(self) -> list[Buffer]:
        return [buffer for buffers in self.steps for buffer in buffers]

    @property
    def in_graph(self) -> bool:
        """Whether gradients flow through what is held, be it into a prefix that a frozen model reads."""
        return any(buffer.in_graph for buffer in self.buffers)

    @property
    def longest(self) -> int:
        return int(np.max(self.lengths))

    @property
    def nbytes(self) -> int:
        """Bytes held, capacity included."""
        return sum(buffer.nbytes for buffer in self.buffers)

    def fill(self, tokens: int, dtype: torch.dtype, device: torch.device) -> None:
        """Become the cache of rows of ``tokens`` tokens, with random content: what timing needs of a long context."""
        self.reset()
        if self.max_length is not None:
            self.check_room(tokens)
            self.allocate(dtype, device)
        for buffer in self.buffers:
            units = Clock(0, tokens, (buffer.stride,)).units(buffer.stride)
            if units.size:
                buffer.live = False
                buffer.reserve(units, self.batch, dtype, device)
                buffer.randomize()
        self.lengths = self._furthest = tokens

    def reset(self) -> None:
        """Forget everything, and free the memory, unless it was declared."""
        for buffer in self.buffers:
            buffer.clear()
        self._unfinished = False
        self.lengths = self._furthest = self._floor = 0

    def become(self, other: StepCache) -> None:
        """Hold what ``other`` holds, a cache of the same rows and walk; where a length is declared, in place."""
        for buffer, theirs in zip(self.buffers, other.buffers, strict=True):
            buffer.become(theirs)
        self.slack, self._unfinished = other.slack, other._unfinished
        self.lengths, self._furthest, self._floor = other.lengths, other._furthest, other._floor

    def counts(self) -> dict[str, Count]:
        """All that a cache is besides its buffers' data."""
        return {"lengths": self.lengths, "furthest": self._furthest, "floor": self._floor, "slack": self.slack}

    def restore(self, counts: Mapping[str, Any], data: Mapping[int, Tensor]) -> None:
        """Become the cache that had these ``counts`` and, by place in ``buffers``, these data."""
        self.reset()
        self.record_past(counts["slack"])
        lengths, furthest, floor = (np.asarray(counts[name]) for name in ("lengths", "furthest", "floor"))
        self.lengths, self._furthest = _alike(lengths), _alike(furthest)
        self._floor = floor if floor.ndim else int(floor)
        for index, buffer in enumerate(self.buffers):
            buffer.restore(data.get(index))

    def record_past(self, tokens: int) -> None:
        """From now on keep enough to take the last ``tokens`` tokens back with ``remove_last``.

        What was overwritten before stays so: what has been read can be cut as far as it could be until now.
        """
        if tokens <= self.slack:
            return
        self._floor = np.maximum(self._floor, np.maximum(np.subtract(self._furthest, self.slack), 0))
        for buffer in self.buffers:
            buffer.set_slack(tokens, self.lengths)
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
        for buffer in self.buffers:
            if buffer.forgets and (np.any(shorter < self._floor) or not buffer.can_shorten(self._furthest, shorter)):
                raise FoveateError(
                    f"cannot remove {tokens} tokens: this cache remembers enough to take {self.slack} back; "
                    f"call record_past({tokens}) on it before reading on"
                )
        self.lengths = _alike(shorter)

    def take_rows(self, rows: Tensor) -> None:
        """Row i becomes the old row ``rows[i]``; rows may repeat or be left out."""
        for buffer in self.buffers:
            buffer.take_rows(rows)
        index = rows.detach().cpu().numpy()
        if not isinstance(self.lengths, int):
            self.lengths = _alike(self.lengths[index])
        if not isinstance(self._furthest, int):
            self._furthest = _alike(self._furthest[index])
        if np.ndim(self._floor):
            self._floor = cast(np.ndarray, self._floor)[index]
        self.batch = len(index)

    def append_rows(self, other: StepCache) -> None:
        """The rows of ``other``, a cache of the same decoder, after these, each to go on as it would have alone.

        Rows may have read different numbers of tokens. ``other`` stays as it is.

        Raises:
            FoveateError: either was left half written, or they are not of the same walk.
        """
        if self._unfinished or other._unfinished:
            raise FoveateError("an earlier call with one of these caches failed and left it half written; begin anew")
        if [buffer.identity for buffer in self.buffers] != [buffer.identity for buffer in other.buffers]:
            raise FoveateError("rows can only be joined by those of a cache that the same model made")
        if self.slack != other.slack:
            self.record_past(other.slack)
            other = copy.deepcopy(other)
            other.record_past(self.slack)
        for buffer, more in zip(self.buffers, other.buffers, strict=True):
            buffer.append_rows(more, self.batch, other.batch)

        def joined(own: Count, new: Count) -> Count:
            return _alike(np.concatenate((np.broadcast_to(own, self.batch), np.broadcast_to(new, other.batch))))

        self.lengths = joined(self.lengths, other.lengths)
        self._furthest = joined(self._furthest, other._furthest)
        self._floor = joined(self._floor, other._floor)
        self.batch += other.batch


def _alike(lengths: Any) -> Count:
    """An int if every row has the same value."""
    if isinstance(lengths, np.ndarray) and lengths.ndim and (lengths != lengths[0]).any():
        return lengths
    return int(np.max(lengths)) if not isinstance(lengths, int) else lengths
