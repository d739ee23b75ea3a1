"""Rows that hold several documents one after another: at every level each gives what it gives alone.

A document's units stand one after another in its row, at every level; groups that documents leave unfinished make
none. Layers' projections see rows as they are. Attention sees every document as a row of its own, those of like
length together, so that the work is that of the documents and not of their rows.

Shape legend: B rows, T tokens, N documents.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from foveate.errors import FoveateError
from foveate.model.clock import Units
from foveate.model.documents import Documents, Indices, Name
from foveate.spec import Expand, HierarchySpec, Pool


class PackedClock:
    """The units of all levels of rows that hold several documents, which ``documents`` [B, T] numbers.

    Attributes:
        indices: all that the steps of the walk need on the device.

    Raises:
        FoveateError: a number falls along a row.
    """

    def __init__(self, documents: Tensor, spec: HierarchySpec) -> None:
        ids_BT = documents.detach().cpu().numpy()
        steps = np.diff(ids_BT, axis=1)
        if (steps < 0).any():
            row, column = np.argwhere(steps < 0)[0]
            raise FoveateError(
                f"documents: row {row} goes from {ids_BT[row, column]} to {ids_BT[row, column + 1]} at column "
                f"{column + 1}; a row's documents stand one after another, numbered upwards"
            )
        starts = np.concatenate((np.ones((len(ids_BT), 1), dtype=bool), steps > 0), 1)
        self._row, self._column = np.nonzero(starts)
        ends = np.append(self._column[1:], 0)
        ends[np.append(self._row[1:] != self._row[:-1], True)] = ids_BT.shape[1]
        self._tokens = ends - self._column
        self._rows = len(ids_BT)
        self._documents = {stride: self._at(stride) for stride in spec.strides}
        self._units: dict[int, Units] = {}
        arrays: dict[Name, np.ndarray] = {}
        for step in spec.steps:
            at = self._documents[step.stride]
            if isinstance(step, Pool):
                arrays["members", step.source, step.stride] = self._documents[step.source].members(at)
            elif isinstance(step, Expand):
                arrays["shown", step.source, step.stride] = at.shown(self._documents[step.source])
            elif step.layers and at.size:
                bundles = [places_nL for _, places_nL in at.of_like_length()]
                arrays |= {("bundle", step.stride, number): places_nL for number, places_nL in enumerate(bundles)}
                arrays["places", step.stride] = at.places_of(bundles)
        self.indices = Indices(arrays)

    def units(self, stride: int) -> Units:
        if stride not in self._units:
            documents = self._documents[stride]
            per_row = documents.per_row
            alike = bool((per_row == per_row[0]).all())
            self._units[stride] = Units(0, documents.size if alike else per_row, indices=self.indices)
        return self._units[stride]

    def _at(self, stride: int) -> Documents:
        count = self._tokens // stride
        before = count.cumsum() - count
        first = before - before[np.searchsorted(self._row, self._row)]
        per_row = np.bincount(self._row, weights=count, minlength=self._rows).astype(np.int64)
        return Documents(row=self._row, tokens=self._tokens, stride=stride, first=first, count=count, per_row=per_row)
