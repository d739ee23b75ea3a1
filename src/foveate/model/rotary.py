"""Rotary positions in units of a level, for pairs (i, i + d/2) of a head, as Llama pairs them.

Shape legend: R rows, S units, H heads, d head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foveate.model.clock import Span

TABLE_POSITIONS = 16_384  # positions whose rotations are kept in a table; those beyond are computed as they come


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type that matrix products of ``x`` will have: autocast's, if it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class Rotary:
    """Cosines and signed sines of positions."""

    def __init__(self, head_dim: int, theta: float) -> None:
        self.head_dim = head_dim
        self.theta = theta
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Rotary:
        return Rotary(self.head_dim, self.theta)

    def __call__(self, span: Span, x: Tensor) -> tuple[Tensor, Tensor]:
        """For the positions of a span: [S, 1, d] if its rows are alike, else [R, S, 1, d]."""
        dtype = compute_dtype(x)
        if span.longest > TABLE_POSITIONS or torch.compiler.is_compiling():
            return self.at(span.positions(x.device), dtype)
        cos, sin = self._table(span.longest, x.device, dtype)
        if span.even:
            at: Any = slice(span.start, span.end)
        else:
            at = span.positions(x.device).clamp_(max=span.longest - 1)
        return cos[at].unsqueeze(-2), sin[at].unsqueeze(-2)

    def at(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """For any positions [...], fractions too: [..., 1, d]."""
        # in fp64: at a million tokens an fp32 angle is off by a sixteenth of a radian
        half = torch.arange(0, self.head_dim, 2, dtype=torch.float64, device=positions.device) / self.head_dim
        angles = positions[..., None, None].double() * self.theta**-half
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)

    def _table(self, positions: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        key = (device, dtype)
        if key not in self._tables or len(self._tables[key][0]) < positions:
            size = min(TABLE_POSITIONS, max(512, 2 * positions))
            with torch.inference_mode(False), torch.no_grad():
                cos, sin = self.at(torch.arange(size, device=device), dtype)
            self._tables[key] = cos[:, 0], sin[:, 0]
        return self._tables[key]


def rotate(x_RSHd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.addcmul(x_RSHd * cos, x_RSHd.roll(x_RSHd.shape[-1] // 2, -1), sin)
