"""What every layer of a walk put out in a call, laid out for people: rows in their places, padding as zeros.

Shape legend: B batch rows, R rows with new units, S new units of a level, T columns, D width.
"""

from __future__ import annotations

from torch import Tensor

from foveate.model.clock import Units
from foveate.spec import HierarchySpec

Trace = list[tuple[Units, Tensor]]  # the new units of each layer's level, and the layer's output [R, S, D]


def in_rows(units: Units, x_RSD: Tensor, batch: int) -> Tensor:
    """[B, S, D], zeros past the units that a row really has."""
    x_RSD = x_RSD[:, : units.size]
    if not units.full:
        real_RS = units.columns(x_RSD.device) < units.counts(x_RSD.device)
        x_RSD = x_RSD.masked_fill(~real_RS[..., None], 0)
    rows = units.row_index(x_RSD.device)
    if rows is None:
        return x_RSD
    return x_RSD.new_zeros(batch, units.size, x_RSD.shape[-1]).index_copy(0, rows, x_RSD)


def in_columns(x_BSD: Tensor, order_BT1: Tensor) -> Tensor:
    """[B, T, D]: item i of a row goes to the column ``order_BT1[row, i]``; rows are filled up with zeros."""
    B, S, D = x_BSD.shape
    order_BS1 = order_BT1[:, :S]
    return x_BSD.new_zeros(B, order_BT1.shape[1], D).scatter(1, order_BS1.expand(-1, -1, D), x_BSD)


def lay_out(spec: HierarchySpec, x_BTD: Tensor, trace: Trace, h_BTD: Tensor, order_BT1: Tensor | None) -> list[Tensor]:
    """The embeddings, what each layer put out, and last the features, as ``foveate.model.lm.read`` says."""
    runs = spec.runs
    strides = [run.stride for run in runs for _ in range(run.layers)]
    if runs[-1].layers:
        strides.pop()
    streams = [x_BTD]
    for stride, (units, x_RSD) in zip(strides, trace, strict=False):
        x_BSD = in_rows(units, x_RSD, len(x_BTD))
        streams.append(in_columns(x_BSD, order_BT1) if stride == 1 and order_BT1 is not None else x_BSD)
    return [*streams, h_BTD]
