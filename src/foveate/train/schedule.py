"""The learning rate over a run, as a fraction of its peak."""

from __future__ import annotations

import math


def warmup_steps(warmup: float, steps: int) -> int:
    """``warmup`` itself, or below 1 that fraction of all steps."""
    return math.ceil(warmup * steps) if warmup < 1 else int(warmup)


def rate(step: int, *, kind: str, steps: int, warmup: int, final: float) -> float:
    """The fraction of the peak rate that step ``step`` (from 0) of ``steps`` is taken with.

    Rises linearly over ``warmup`` steps, then stays (``constant``) or falls (``linear``, ``cosine``) so that the last
    step has ``final``.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if kind == "constant":
        return 1.0
    done = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    left = 1 - done if kind == "linear" else (1 + math.cos(math.pi * done)) / 2
    return final + (1 - final) * left
