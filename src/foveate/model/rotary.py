"""Rotary positions in units of a level, for pairs (i, i + d/2) of a head, as Llama pairs them.

Angles are exact to fp32 at any position on any device, without fp64 there: the rotation by a position is that by its
multiple of ``COARSE`` and that by the rest, of both of which tables are made once, in fp64 on the CPU.

Shape legend: R rows, S units, H heads, d head width.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from foveate.backends import compute_dtype
from foveate.model.clock import Units
from foveate.spec import Rope

HALVES = 2  # positions are counted in halves: a group of an even number of units stands between two of them
COARSE = 2048  # halves
LONGEST = 4_194_304  # positions; tables beyond it are larger ones
TABLE_POSITIONS = 16_384  # positions from the first on whose rotations are kept ready; others are put together

Rotation = tuple[Tensor, Tensor]  # cosines and signed sines


class Rotary:
    """Cosines and signed sines of positions.

    Attributes:
        speeds: by how much each pair of a head turns a unit, [d / 2]; those that do not turn stand last.
    """

    def __init__(self, head_dim: int, rope: Rope | float | None) -> None:
        """``rope`` may be its base alone; None: nothing turns."""
        self.head_dim = head_dim
        self.speeds = _speeds(head_dim, Rope(name="default", theta=rope) if isinstance(rope, int | float) else rope)

    def __call__(self, units: Units, x: Tensor) -> Rotation:
        """For the positions of new units: [S, 1, d] of aligned rows, else [R, S, 1, d]."""
        dtype = compute_dtype(x)
        compiled = torch.compiler.is_compiling()
        if compiled or units.longest > TABLE_POSITIONS:
            return self.at(units.positions(x.device), dtype, units.longest)
        cos, sin = _table(self.speeds, _round_up(units.longest), x.device, dtype)
        if units.aligned:
            at: Any = slice(units.first, units.first + units.size)
        else:
            at = units.positions(x.device).clamp_(max=units.longest - 1)
        return cos[at].unsqueeze(-2), sin[at].unsqueeze(-2)

    def at(self, positions: Tensor, dtype: torch.dtype, longest: int = 0) -> Rotation:
        """For positions [...] below ``longest``: [..., 1, d]."""
        return self.at_halves(positions * HALVES, dtype, longest)

    def at_halves(self, halves: Tensor, dtype: torch.dtype, longest: int = 0) -> Rotation:
        """For positions [...] counted in halves, below ``longest`` units: [..., 1, d]."""
        longest = LONGEST if torch.compiler.is_compiling() else max(LONGEST, longest)
        precise = torch.float64 if dtype == torch.float64 else torch.float32
        fine, coarse = _parts(self.speeds, longest, halves.device, precise)
        cos_f, sin_f = fine[halves % COARSE].unbind(-2)
        cos_c, sin_c = coarse[halves // COARSE].unbind(-2)
        cos, sin = cos_c * cos_f - sin_c * sin_f, sin_c * cos_f + cos_c * sin_f
        return _both_halves(cos, sin, dtype)


def _both_halves(cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Rotation:
    return torch.cat((cos, cos), -1).to(dtype)[..., None, :], torch.cat((-sin, sin), -1).to(dtype)[..., None, :]


def _speeds(head_dim: int, rope: Rope | None) -> tuple[float, ...]:
    if rope is None:
        return (0.0,) * (head_dim // 2)
    rope.check_head(head_dim)
    rotated = head_dim if rope.rotated is None else rope.rotated
    speeds = float(rope.theta) ** (-torch.arange(0, rotated, 2, dtype=torch.float64, device="cpu") / rotated)
    if rope.divide:
        speeds = speeds / torch.tensor(rope.divide, dtype=torch.float64, device="cpu")
    return (*speeds.tolist(), *[0.0] * ((head_dim - rotated) // 2))


def _angles(speeds: tuple[float, ...], positions: Tensor) -> Tensor:
    """[..., d/2] in fp64, on the CPU."""
    return positions.double()[..., None] * torch.tensor(speeds, dtype=torch.float64, device="cpu")


def _round_up(positions: int) -> int:
    return min(TABLE_POSITIONS, max(512, 1 << (positions - 1).bit_length()))


@functools.lru_cache(maxsize=64)
def _table(speeds: tuple[float, ...], positions: int, device: torch.device, dtype: torch.dtype) -> Rotation:
    """Of the first ``positions``, [positions, d] each."""
    with torch.inference_mode(False), torch.no_grad():
        angles = _angles(speeds, torch.arange(positions, device="cpu"))
        cos, sin = _both_halves(angles.cos(), angles.sin(), dtype)
        return cos[:, 0].to(device), sin[:, 0].to(device)


@torch.compiler.assume_constant_result
def _parts(speeds: tuple[float, ...], longest: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the first ``COARSE`` halves, and of the multiples of it, [..., 2, d/2] each."""
    # what is kept must be numbers, not what an exporter traces with
    with _disable_current_modes() if torch.compiler.is_compiling() else contextlib.nullcontext():
        return _make_parts(speeds, longest, device, dtype)


@functools.lru_cache(maxsize=64)
def _make_parts(
    speeds: tuple[float, ...], longest: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False), torch.no_grad():
        rest = torch.arange(COARSE, device="cpu") / HALVES
        multiples = torch.arange(-(-longest * HALVES // COARSE) + 1, device="cpu") * (COARSE // HALVES)
        angles = [_angles(speeds, positions) for positions in (rest, multiples)]
        fine, coarse = (torch.stack((angle.cos(), angle.sin()), -2).to(device, dtype) for angle in angles)
    return fine, coarse


def rotate(x_RSHd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.addcmul(x_RSHd * cos, x_RSHd.roll(x_RSHd.shape[-1] // 2, -1), sin)
