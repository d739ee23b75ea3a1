"""How the documents of rows that hold several lie in the units of a level.

Shape legend: B rows, S units of a level in the fullest row, N documents, n documents of like length, L units of the
longest of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from foveate.model.clock import upload

Name = tuple[str | int, ...]  # of what an index says, of the strides between which it leads


class Indices:
    """Index arrays of a call, taken to the device together when the first is asked for."""

    def __init__(self, arrays: Mapping[Name, np.ndarray]) -> None:
        self._arrays = arrays
        self._parts: dict[Name, Tensor] = {}

    def bundles(self, stride: int, device: torch.device) -> list[Tensor]:
        """Of a level, documents of like length as rows: see ``Documents.of_like_length``."""
        return [part for name, part in self.on(device).items() if name[:2] == ("bundle", stride)]

    def on(self, device: torch.device) -> Mapping[Name, Tensor]:
        if not self._parts:
            arrays = self._arrays.values()
            flat = upload(np.concatenate([array.ravel() for array in arrays]), device)
            parts = flat.split([array.size for array in arrays])
            self._parts = {
                name: part.view(array.shape) for (name, array), part in zip(self._arrays.items(), parts, strict=True)
            }
        return self._parts


@dataclass(frozen=True, kw_only=True)
class Documents:
    """How the documents of a batch lie in the units of one level.

    Attributes:
        row: [N] of each document.
        tokens: [N] that it has.
        stride: of the level.
        first: [N] the column of its first unit.
        count: [N] its units.
        per_row: [B] units of all documents of a row.
    """

    row: np.ndarray
    tokens: np.ndarray
    stride: int
    first: np.ndarray
    count: np.ndarray
    per_row: np.ndarray

    @property
    def size(self) -> int:
        return int(self.per_row.max())

    def units(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of every unit of every document: the document, its number in it, its place in the flattened batch."""
        document = np.repeat(np.arange(len(self.count)), self.count)
        number = np.arange(len(document)) - np.repeat(self.count.cumsum() - self.count, self.count)
        return document, number, self.row[document] * self.size + self.first[document] + number

    def members(self, coarse: Documents) -> np.ndarray:
        """[B, S · k]: the columns of the finer units that make each of the ``coarse`` ones."""
        k = coarse.stride // self.stride
        document, number, place = coarse.units()
        column = np.zeros((len(self.per_row) * coarse.size, k), dtype=np.int64)
        column[place] = (self.first[document] + number * k)[:, None] + np.arange(k)
        return column.reshape(len(self.per_row), -1)

    def shown(self, coarse: Documents) -> np.ndarray:
        """Of each finer unit, [3, B, S]: the column after that of the newest ``coarse`` unit complete with it, 0
        before there is one; the first such column of its document; how far past that unit it is, 0 … k - 1."""
        k = coarse.stride // self.stride
        document, number, place = self.units()
        found = np.zeros((3, len(self.per_row) * self.size), dtype=np.int64)
        complete = (number + 1) // k
        found[0, place] = np.where(complete > 0, coarse.first[document] + complete, 0)
        found[1, place] = coarse.first[document] + 1
        found[2, place] = (number + 1) % k
        return found.reshape(3, len(self.per_row), -1)

    def of_like_length(self) -> Iterator[tuple[int, np.ndarray]]:
        """Documents as rows: [n, L] places in the flattened batch, and L. A shorter one repeats its last unit."""
        sizes = np.ceil(np.log2(np.maximum(self.count, 1))).astype(np.int64)
        for size in np.unique(sizes[self.count > 0]):
            chosen = np.flatnonzero((sizes == size) & (self.count > 0))
            longest = int(self.count[chosen].max())
            number = np.minimum(np.arange(longest), self.count[chosen][:, None] - 1)
            yield longest, (self.row[chosen] * self.size + self.first[chosen])[:, None] + number

    def places_of(self, bundles: list[np.ndarray]) -> np.ndarray:
        """[B · S]: where in all bundles, flattened one after another, each unit of the batch stands first."""
        stands = np.zeros(len(self.per_row) * self.size, dtype=np.int64)
        everywhere = np.concatenate([bundle.ravel() for bundle in bundles])
        stands[everywhere[::-1]] = np.arange(len(everywhere))[::-1]
        return stands
