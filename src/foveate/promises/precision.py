"""Half precision drifts no further with length than rounding does.

The model in bfloat16 is compared with its twin in float32 that has the same, rounded weights. What rounding can do is
measured on that twin: its results are moved at random by the last digit of bfloat16. Positions that are counted in
bfloat16, sums over a whole text and the like are not among what is moved; where they round, the distance grows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.promises.noise import FUSED, noisy
from foveate.promises.promise import Case, Comparison, Promise
from foveate.promises.reading import Values, make_rows, read, together
from foveate.promises.subject import Subject

HALF = torch.bfloat16
STREAM = FUSED | {"mm", "addmm", "linear", "silu", "gelu", "add"}
PARTS = 4
GROWTH = 3.0  # how much more than at the beginning, in shares of what rounding does at either place
MOST = 10.0  # and in any place


def _rounded_twin(subject: Subject) -> Subject:
    twin = subject.copy_in(torch.float32)
    with torch.no_grad():
        for parameter in twin.model.parameters():
            parameter.copy_(parameter.to(HALF))
    return twin


def _drift(subject: Subject, case: Case) -> Comparison:
    row = make_rows(subject, [case.length], case.seed)[0]
    twin = _rounded_twin(subject)
    exact = read(twin, [together([row])])["row 0"]

    def off(values: Values) -> Tensor:
        """The distance of the middle token of each part: not moved by a few that rounding sends to another expert."""
        squares = (values["row 0"].float() - exact).square().mean(-1)
        return torch.stack([part.median().sqrt() for part in squares.tensor_split(PARTS)])

    def half() -> Tensor:
        return off(read(twin.copy_in(HALF), [together([row])]))

    def allowed() -> Values:
        unit = torch.finfo(HALF).eps / 2
        moved = [noisy(lambda: read(twin, [together([row])]), seed, unit=unit, names=STREAM) for seed in (0, 1)]
        rounding = torch.stack([off(values) for values in moved]).amax(0)
        first = (half()[0] / rounding[0]).clamp(1.0, MOST / GROWTH)
        return by_part(GROWTH * first * rounding)

    def by_part(values: Tensor) -> Values:
        return {f"part {place}": value for place, value in enumerate(values)}

    return Comparison(
        expected=allowed,
        actual=lambda: by_part(half()),
        input=f"{case.length} tokens: {row[:8].tolist()} …",
        watchable=False,
    )


def _converts(subject: Subject) -> str:
    return "its weights are quantised" if subject.quantized else ""


DRIFT = Promise(
    name="half-precision",
    group="the whole model",
    says="bfloat16 stays as near to float32 as rounding allows, however long the text",
    compare=_drift,
    lacking=_converts,
    measure="drift",
    shortest=8,
    longest=320,
    quick=False,
    finer=False,
)
