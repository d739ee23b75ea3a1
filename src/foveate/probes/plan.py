"""What a shuffle probe does to the context of which sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foveate.errors import FoveateError, shown
from foveate.probes.treatments import CONDITIONS, Unit

TREATED = CONDITIONS[1:]
MOST_PERMUTATIONS = 10_000


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """One thing done to the tokens before one boundary, ``permutations`` times over."""

    condition: str
    boundary: int
    unit: str | None
    permutations: int

    @property
    def name(self) -> str:
        return f"{self.condition} {self.unit or ''} {self.boundary}"


@dataclass(frozen=True, kw_only=True)
class ShufflePlan:
    """What is done to which sequences.

    ``boundaries`` are tokens before the boundary, by default half of the context; ``tolerance`` is the share of a
    curve's mean over its first ``near`` distances within which it counts as nothing.
    """

    context: int = 512
    boundaries: tuple[int, ...] = ()
    conditions: tuple[str, ...] = TREATED
    units: tuple[str, ...] = ("token",)
    sequences: int = 200
    permutations: int = 3
    tolerance: float = 0.05
    near: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.context < 2:
            raise FoveateError(f"--context: {self.context} must be at least 2, one token to treat and one to score")
        object.__setattr__(self, "boundaries", tuple(sorted(set(self.boundaries or (self.context // 2,)))))
        object.__setattr__(self, "units", tuple(dict.fromkeys(str(Unit.parse(unit)) for unit in self.units)))
        for boundary in self.boundaries:
            if not 0 < boundary < self.context:
                raise FoveateError(
                    f"--boundary: {boundary} must be from 1 to {self.context - 1}, inside the context of {self.context}"
                )
        unknown = [name for name in self.conditions if name not in CONDITIONS]
        if unknown:
            raise FoveateError(f"--conditions: {shown(unknown[0])} is unknown; choose of {', '.join(TREATED)}")
        chosen = tuple(name for name in TREATED if name in self.conditions)
        object.__setattr__(self, "conditions", chosen)
        if not chosen:
            raise FoveateError(f"--conditions: nothing to compare with original; choose of {', '.join(TREATED)}")
        for name in ("sequences", "permutations", "near"):
            if getattr(self, name) < 1:
                raise FoveateError(f"--{name}: {getattr(self, name)} must be at least 1")
        if self.permutations > MOST_PERMUTATIONS:
            raise FoveateError(f"--permutations: {self.permutations} must be at most {MOST_PERMUTATIONS}")
        if self.seed < 0:
            raise FoveateError(f"--seed: {self.seed} must be at least 0")
        if self.sequences < 2:
            raise FoveateError("--sequences: 1 must be at least 2, of one there is no interval")
        if not 0 < self.tolerance < 1:
            raise FoveateError(f"--tolerance: {self.tolerance} must be a share between 0 and 1, such as 0.05")

    def treatments(self) -> Iterator[Treatment]:
        for boundary in self.boundaries:
            for condition in self.conditions:
                for unit in self.units if condition == "shuffle" else (None,):
                    permutations = 1 if condition == "truncate" else self.permutations
                    yield Treatment(condition=condition, boundary=boundary, unit=unit, permutations=permutations)
