"""The learning rate over a run.

A pure function of the step, so that a resumed run needs no state for it. transformers' schedules take the first step
at rate 0 and never arrive at the end; from one step later on, its cosine and polynomial ones are these
(``tests/train/test_schedule.py``).
"""

from __future__ import annotations

import math

from foveate.train.settings import TrainSettings

DECAY = 0.2  # of the steps: where wsd stays no more


def learning_rate(step: int, settings: TrainSettings) -> float:
    """The rate that step ``step`` (from 1) is taken with."""
    steps = settings.steps
    warmup = warmup_steps(settings.warmup, steps)
    fraction = rate(step - 1, kind=settings.schedule, steps=steps, warmup=warmup, final=settings.final_lr)
    return (settings.lr or 0.0) * fraction


def warmup_steps(warmup: float, steps: int) -> int:
    """``warmup`` itself, or below 1 that fraction of all steps."""
    return math.ceil(warmup * steps) if warmup < 1 else int(warmup)


def rate(step: int, *, kind: str, steps: int, warmup: int, final: float) -> float:
    """The fraction of the peak rate that step ``step`` (from 0) of ``steps`` is taken with.

    Rises linearly over ``warmup`` steps, then stays (``constant``; ``wsd`` until the last fifth of the steps) or falls
    (``linear``, ``cosine``; ``wsd`` as ``linear``) so that the last step has ``final``.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if kind == "constant":
        return 1.0
    begin = max(warmup, steps - 1 - math.ceil(DECAY * steps)) if kind == "wsd" else warmup
    done = min(1.0, max(0, step - begin) / max(1, steps - 1 - begin))
    left = (1 + math.cos(math.pi * done)) / 2 if kind == "cosine" else 1 - done
    return final + (1 - final) * left
