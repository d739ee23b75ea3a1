"""Rotary positions as configurations of transformers have them, turned into ``foveate.spec.Rope``.

Each kind of scaling comes to a divisor for every pair of channels and to a factor on the scores, which the weights of
the queries take. What depends on the text's length, which no model with a cache can look ahead to, is fixed for one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from foveate.errors import FoveateError, shown
from foveate.spec import Rope

KNOWN = {
    "default": set(),
    "linear": {"factor"},
    "dynamic": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {
        "factor",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "truncate",
    },
    "longrope": {"factor", "attention_factor", "short_factor", "long_factor", "original_max_position_embeddings"},
}


@dataclass(frozen=True, kw_only=True)
class Turning:
    """A rope, and by how much the scores of what turns are multiplied."""

    rope: Rope
    scores: float = 1.0
    exact_to: int | None = None  # tokens of a text up to which it is the source's; None: of any


def read_rope(given: dict[str, Any], *, name: str, head_dim: int, positions: int, context: int | None) -> Turning:
    """The rope of ``rope_parameters``, for texts of up to ``context`` tokens where it depends on that.

    Raises:
        FoveateError: a kind or a field that is not known.
    """
    kind = given.get("rope_type", "default")
    if kind not in KNOWN:
        raise FoveateError(f"rope_type is {shown(kind)}; it must be one of {', '.join(KNOWN)}")
    more = set(given) - KNOWN[kind] - {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
    for field in sorted(more):
        if given[field] is not None:
            raise FoveateError(f"rope_parameters: {field} is {shown(given[field])}, which rope_type {kind} has not")
    theta, rotated = float(given["rope_theta"]), int(head_dim * given.get("partial_rotary_factor", 1.0))
    original = given.get("original_max_position_embeddings") or positions
    factor: float = given["factor"] if given.get("factor") is not None else positions / original
    divide: tuple[float, ...] = ()
    scores, exact_to = 1.0, None
    if kind == "linear":
        divide = (float(factor),) * (rotated // 2)
    elif kind == "dynamic":
        exact_to = max(context or positions, positions)
        grown = factor * exact_to / positions - (factor - 1)
        theta *= grown ** (rotated / (rotated - 2))
        exact_to = positions if exact_to == positions else None  # by now it holds for that length alone
    elif kind == "llama3":
        divide = tuple(_llama3(theta, rotated, factor, original, given))
    elif kind == "yarn":
        divide = tuple(_yarn(theta, rotated, factor, original, given))
        scores = _yarn_attention(factor, given) ** 2
    elif kind == "longrope":
        is_long = context is not None and context > original
        divide = tuple(map(float, given["long_factor" if is_long else "short_factor"]))
        attention = given.get("attention_factor")
        if attention is None:
            attention = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
        scores, exact_to = attention**2, None if is_long else original
    rope = Rope(name=name, theta=theta, rotated=None if rotated == head_dim else rotated, divide=divide)
    return Turning(rope=rope, scores=scores, exact_to=exact_to)


def _llama3(theta: float, rotated: int, factor: float, original: int, given: dict[str, Any]) -> list[float]:
    low, high = given["low_freq_factor"], given["high_freq_factor"]
    divide = []
    for pair in range(rotated // 2):
        wavelength = 2 * math.pi * theta ** (2 * pair / rotated)
        if wavelength < original / high:
            divide.append(1.0)
        elif wavelength > original / low:
            divide.append(float(factor))
        else:
            smooth = (original / wavelength - low) / (high - low)
            divide.append(1 / ((1 - smooth) / factor + smooth))
    return divide


def _yarn(theta: float, rotated: int, factor: float, original: int, given: dict[str, Any]) -> list[float]:
    def pair_of(turns: float) -> float:
        return rotated * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_of(given.get("beta_fast") or 32), pair_of(given.get("beta_slow") or 1)
    if given.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotated - 1)
    high = high + 0.001 if low == high else high
    divide = []
    for pair in range(rotated // 2):
        ramp = min(max((pair - low) / (high - low), 0.0), 1.0)
        divide.append(1 / (ramp / factor + 1 - ramp))
    return divide


def _yarn_attention(factor: float, given: dict[str, Any]) -> float:
    def scale(mscale: float = 1.0) -> float:
        return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0

    if given.get("attention_factor") is not None:
        return float(given["attention_factor"])
    if given.get("mscale") and given.get("mscale_all_dim"):
        return scale(given["mscale"]) / scale(given["mscale_all_dim"])
    return scale()
