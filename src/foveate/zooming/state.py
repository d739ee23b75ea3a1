"""What a zoom layer remembers, written in place: one tensor of slots, sorted block by block as text leaves the near.

How they are kept ``Keeping`` says. A block's order is kept too, so that text can be taken back: what is no longer far
returns to the order it came in.

Shape legend: R rows, H query heads, K key heads, C new tokens, L slots, n keys of a block, d head width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from foveate.errors import FoveateError
from foveate.spec.zoom_plan import ZoomPlan
from foveate.zooming.attend import Album, attend, spread_of
from foveate.zooming.keeping import Keeping, Kept
from foveate.zooming.sort import sorted_order

KEPT = ("keys", "values", "keys_scale", "values_scale", "order")  # tensors that are kept as ``Keeping`` says
BYTES_AT_ONCE = 1 << 26  # what the queries of one step of a long call may gather; 32 times as much off the CPU


def bytes_at_once(device: torch.device) -> int:
    return BYTES_AT_ONCE if device.type == "cpu" else 32 * BYTES_AT_ONCE


def queries_at_once(plan: ZoomPlan, q_RHCd: Tensor, k_RKCd: Tensor, length: int) -> int:
    """How many queries of a call to take together, so that what they read fits in ``bytes_at_once``."""
    (R, H, _, d), K = q_RHCd.shape, k_RKCd.shape[1]
    keys, summaries = plan.reads(length)
    vectors = 2 * R * K * (keys + summaries) * d * k_RKCd.element_size()
    scores = 12 * R * H * (keys + summaries + plan.block)
    return max(1, min(plan.block, bytes_at_once(q_RHCd.device) // (vectors + scores)))


class ZoomState:
    """Keys and values of the rows of a batch, each on its own clock.

    Attributes:
        lengths: tokens read by each row.
    """

    def __init__(self, plan: ZoomPlan, keeping: Keeping | None = None) -> None:
        self.plan, self.keeping = plan, keeping or Keeping()
        self.lengths: list[int] = []
        self._sorted: list[int] = []  # complete blocks of each row that lie in order
        self._tensors: dict[str, Tensor] = {}

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes held, capacity included."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    @property
    def device_nbytes(self) -> int:
        """Bytes held on the device."""
        off = self.keeping.offload is not None
        return sum(tensor.nbytes for name, tensor in self._tensors.items() if not (off and name in KEPT))

    @property
    def capacity(self) -> int:
        """Tokens that fit without growing."""
        return self._tensors["keys"].shape[2] + self.plan.sinks if self._tensors else 0

    @property
    def album(self) -> Album:
        t = self._tensors
        means = [(t[f"mean_keys_{size}"], t[f"mean_values_{size}"]) for size in self.plan.levels]
        spreads = [t[f"mean_spread_{size}"] for size in self.plan.levels] if self.plan.spread else ()
        return Album((t["sink_keys"], t["sink_values"]), (self._slots("keys"), self._slots("values")), means, spreads)

    def _slots(self, name: str) -> Kept:
        means = self._tensors[f"mean_{name}_{self.plan.block}"]
        return Kept(self._tensors[name], self._tensors.get(f"{name}_scale"), means.dtype, means.device)

    @torch.no_grad()
    def read(
        self, q_RHCd: Tensor, k_RKCd: Tensor, v_RKCd: Tensor, *, counts: Sequence[int] | None = None, scale: float
    ) -> Tensor:
        """Take in the new tokens' keys and values, and answer their queries, [R, H, C, d].

        Args:
            counts: how many of the C columns are each row's, from the first on; the others' outputs mean nothing.
            scale: of the products of queries and keys.

        Raises:
            FoveateError: for another number of rows than before, and for tensors that want gradients: a state
                written in place has none. ``zoom_attention`` reads a whole text with gradients.
        """
        R, H, C, _ = q_RHCd.shape
        if not self.lengths:
            self.lengths, self._sorted = [0] * R, [0] * R
        if len(self.lengths) != R:
            raise FoveateError(f"zoom: {R} rows for a state of {len(self.lengths)}; use take_rows to change them")
        counts = [C] * R if counts is None else list(counts)
        self.reserve(max(self.lengths) + C, k_RKCd, v_RKCd)  # also where a row's columns beyond its count would look
        at_once = queries_at_once(self.plan, q_RHCd, k_RKCd, max(self.lengths) + C)
        out_RHCd = torch.empty(R, H, C, v_RKCd.shape[-1], dtype=q_RHCd.dtype, device=q_RHCd.device)
        a = 0
        while a < C:
            firsts = list(self.lengths)
            runs = [self.plan.alike(first) for first, count in zip(firsts, counts, strict=True) if count > a]
            b = min(C, a + min([at_once, *runs]))
            self._write(k_RKCd[:, :, a:b], v_RKCd[:, :, a:b], [max(0, min(n, b) - a) for n in counts])
            out_RHCd[:, :, a:b] = attend(q_RHCd[:, :, a:b], firsts, self.album, self.plan, scale)
            a = b
        return out_RHCd

    def reserve(self, tokens: int, k_RKCd: Tensor, v_RKCd: Tensor) -> None:
        """Make room for rows of ``tokens`` tokens of the shape of these."""
        plan, block = self.plan, self.plan.block
        old = self._tensors.get("keys")
        held = 0 if old is None else old.shape[2]
        if old is not None and tokens <= held + plan.sinks:
            return
        R, K = k_RKCd.shape[:2]
        slots = max(tokens - plan.sinks, 1) if old is None else max(tokens - plan.sinks, held + held // 4)
        slots = -(-slots // block) * block

        def grown(
            name: str, like: Tensor, count: int, width: int | None = None, dtype: torch.dtype | None = None
        ) -> None:
            shape = (R, K, count) if width == 0 else (R, K, count, width or like.shape[-1])
            # zeros: what no query sees is read and weighted by 0
            keeping = self.keeping if name in KEPT else Keeping()
            new = keeping.zeros(shape, dtype or like.dtype, like.device)
            if name in self._tensors:
                new[:, :, : self._tensors[name].shape[2]] = self._tensors[name]
            self._tensors[name] = new

        for name, like in (("keys", k_RKCd), ("values", v_RKCd)):
            grown(name, like, slots, dtype=torch.int8 if self.keeping.bits else None)
            if self.keeping.bits:
                grown(f"{name}_scale", like, slots, width=1, dtype=torch.float32)
            grown(f"sink_{name}", like, plan.sinks)
            for size in plan.levels:
                grown(f"mean_{name}_{size}", like, slots // size)
        for size in plan.levels if plan.spread else ():
            grown(f"mean_spread_{size}", k_RKCd, slots // size, width=1)
        grown("order", k_RKCd, slots, width=0, dtype=torch.int16)

    def _write(self, k_RKCd: Tensor, v_RKCd: Tensor, counts: Sequence[int]) -> None:
        """Append ``counts`` new tokens to the rows, and file what became complete."""
        for rows, start, count in self._alike(counts):
            sinks = min(count, max(0, self.plan.sinks - start))
            slot = max(0, start - self.plan.sinks)
            for name, new in (("keys", k_RKCd), ("values", v_RKCd)):
                if sinks:
                    self._tensors[f"sink_{name}"][rows, :, start : start + sinks] = new[rows, :, :sinks]
                if count > sinks:
                    self._slots(name).put(slot, new[rows, :, sinks:count], rows)
            if count > sinks:
                self._summarise(rows, slot, slot + count - sinks)
            self._sort(rows, self.plan.blocks(start + count - 1))
        self.lengths = [length + n for length, n in zip(self.lengths, counts, strict=True)]

    def _alike(self, counts: Sequence[int]) -> list[tuple[slice, int, int]]:
        """Rows to write, their length and number of new tokens: all at once if they are alike, else one by one."""
        if len(set(self.lengths)) == 1 and len(set(counts)) == 1 and len(set(self._sorted)) == 1:
            return [(slice(None), self.lengths[0], counts[0])] if counts[0] else []
        each = enumerate(zip(self.lengths, counts, strict=True))
        return [(slice(row, row + 1), length, count) for row, (length, count) in each if count]

    def _summarise(self, rows: slice, first: int, end: int) -> None:
        """Means of the contiguous groups that were completed by the slots from ``first`` to below ``end``."""
        for size in self.plan.groups:
            a, b = first // size, end // size
            if size <= self.plan.step and a < b:
                self._write_means(rows, size, a * size, b * size)

    def _write_means(self, rows: slice, size: int, a: int, b: int) -> None:
        for name in ("keys", "values"):
            groups = self._slots(name).piece(a, b, rows).unflatten(2, (-1, size))
            self._tensors[f"mean_{name}_{size}"][rows, :, a // size : b // size] = groups.mean(3)
            if name == "keys" and self.plan.spread:
                self._tensors[f"mean_spread_{size}"][rows, :, a // size : b // size] = spread_of(groups)

    def _sort(self, rows: slice, blocks: int) -> None:
        """Sort every block of these rows up to ``blocks`` that is not."""
        block = self.plan.block
        for number in range(self._sorted[rows][0], blocks):
            a, b = number * block, (number + 1) * block
            order_RKn = sorted_order(self._slots("keys").piece(a, b, rows), self.plan.groups[-1])
            for name in ("keys", "values"):
                self._slots(name).reorder(a, b, order_RKn, rows)
            self._tensors["order"][rows, :, a:b] = order_RKn.to(torch.int16)
            for size in self.plan.levels:
                self._write_means(rows, size, a, b)
        self._sorted[rows] = [max(blocks, self._sorted[rows][0])] * len(self._sorted[rows])

    @torch.no_grad()
    def remove_last(self, tokens: int) -> None:
        """Take the last ``tokens`` tokens of every row back."""
        if tokens < 0 or any(length < tokens for length in self.lengths):
            raise FoveateError(f"zoom: cannot remove {tokens} tokens of rows of {self.lengths}")
        self.cut([length - tokens for length in self.lengths])

    def _unsort(self, rows: slice, blocks: int) -> None:
        block = self.plan.block
        for number in range(blocks, self._sorted[rows][0]):
            a, b = number * block, (number + 1) * block
            place_RKn = self._tensors["order"][rows, :, a:b].long().argsort(-1)
            for name in ("keys", "values"):
                self._slots(name).reorder(a, b, place_RKn, rows)
            self._summarise(rows, a, b)
        self._sorted[rows] = [min(blocks, count) for count in self._sorted[rows]]

    def begin(self, rows: int) -> None:
        """Become the state of ``rows`` rows that have read nothing."""
        self.lengths, self._sorted = [0] * rows, [0] * rows

    @torch.no_grad()
    def cut(self, lengths: Sequence[int]) -> None:
        """Take back of each row what is beyond these ``lengths``."""
        for row, length in enumerate(lengths):
            if length < self.lengths[row]:
                self.lengths[row] = length
                self._unsort(slice(row, row + 1), self.plan.blocks(length - 1))

    @torch.no_grad()
    def catch_up(self, k_RKLd: Tensor, v_RKLd: Tensor, lengths: Sequence[int]) -> None:
        """Take in what rows lack of these ``lengths``, from keys and values that begin with the rows' first."""
        missing = [max(0, length - held) for length, held in zip(lengths, self.lengths, strict=True)]
        if not any(missing):
            return
        self.reserve(max(lengths), k_RKLd, v_RKLd)
        columns = torch.arange(max(missing), device=k_RKLd.device)
        at_R1L1 = (torch.tensor(self.lengths, device=k_RKLd.device)[:, None] + columns)[:, None, :, None]
        at_R1L1 = at_R1L1.clamp(max=k_RKLd.shape[2] - 1)
        k_RKCd, v_RKCd = (x.gather(2, at_R1L1.expand(-1, x.shape[1], -1, x.shape[3])) for x in (k_RKLd, v_RKLd))
        self._write(k_RKCd, v_RKCd, missing)

    def take_rows(self, rows: Tensor) -> None:
        """Row i becomes the old row ``rows[i]``; rows may repeat or be left out."""
        index = rows.tolist()
        self.lengths, self._sorted = ([old[i] for i in index] for old in (self.lengths, self._sorted))
        self._hold({n: t.index_select(0, rows.to(t.device)) for n, t in self._tensors.items()})

    def clear(self) -> None:
        """Forget everything, and free the memory."""
        self.lengths, self._sorted, self._tensors = [], [], {}

    def fill(self, tokens: int, piece_RKCd: Tensor) -> None:
        """Become the state of rows of ``tokens`` tokens made of this piece, unsorted: for timing a long text."""
        self.clear()
        self.lengths = [tokens] * len(piece_RKCd)
        self._sorted = [self.plan.blocks(tokens - 1)] * len(piece_RKCd)
        self.reserve(tokens + self.plan.block, piece_RKCd, piece_RKCd)
        for name, tensor in self._tensors.items():
            if name in KEPT[2:]:
                continue
            count = -(-tensor.shape[2] // max(1, piece_RKCd.shape[2]))
            filled = piece_RKCd.repeat(1, 1, count, 1)[:, :, : tensor.shape[2], : tensor.shape[3]]
            if name in KEPT:
                self._slots(name).put(0, filled)
            else:
                tensor.copy_(filled)

    def saved(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that the state is, without spare capacity: counts, and tensors by name."""
        slots = max([0, *self.lengths]) - self.plan.sinks
        slots = -(-max(slots, 1) // self.plan.block) * self.plan.block
        tensors = {}
        for name, tensor in self._tensors.items():
            size = int(name.rsplit("_", 1)[1]) if name.startswith("mean_") else 1
            tensors[name] = (tensor if name.startswith("sink_") else tensor[:, :, : slots // size]).contiguous()
        return {"lengths": self.lengths, "sorted": self._sorted}, tensors

    def restore(self, counts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Become the state that was ``saved``.

        Raises:
            FoveateError: its keys and values were kept in another number of bits.
        """
        if tensors and ("keys_scale" in tensors) != (self.keeping.bits is not None):
            bits = "8 bits" if "keys_scale" in tensors else "full"
            raise FoveateError(
                f"zoom: keys and values were kept in {bits}; zoom with bits={None if bits == 'full' else 8}"
            )
        self.lengths, self._sorted = list(counts["lengths"]), list(counts["sorted"])
        self._hold(tensors)

    def __deepcopy__(self, memo: dict[int, Any]) -> ZoomState:
        twin = ZoomState(self.plan, self.keeping)
        twin.lengths, twin._sorted = list(self.lengths), list(self._sorted)
        twin._hold({name: tensor.clone() for name, tensor in self._tensors.items()})
        return twin

    def _hold(self, tensors: Mapping[str, Tensor]) -> None:
        """Take these as the state's, each where it is kept."""
        off, device = self.keeping.offload is not None, None
        if tensors:
            device = tensors[f"mean_keys_{self.plan.block}"].device
        self._tensors = {
            name: self.keeping.kept(tensor, device) if off and device and name in KEPT else tensor
            for name, tensor in tensors.items()
        }
