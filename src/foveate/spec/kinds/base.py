"""What a kind of attention says of itself: everything that any other part of foveate asks of it.

A kind is one class in one file of this folder, listed in ``KINDS``. It knows no torch: ``module`` names the class that
computes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from foveate.spec.walk import Level

SAMPLES = 512  # positions that stand for all others when the keys of a kind are averaged


@dataclass(frozen=True, kw_only=True)
class Attention(ABC):
    """How the layers of a run look back, in units of the run's level. ``str`` is its text in a walk.

    Attributes:
        name: of the kind, in words and tables.
        example: what to write in a walk.
        marks: a cell of a layer in pictures of characters, and where only ASCII can be shown.
        opacity: of a layer in plots.
        module: ``module:class`` of the ``foveate.model.attention.Heads`` that computes it.
        flat: whether the work for a unit stops growing with the text, so that no text is too long.
        vectors: of a head's width, kept for each item: a key and a value.
    """

    name: ClassVar[str]
    example: ClassVar[str]
    marks: ClassVar[tuple[str, str]]
    opacity: ClassVar[float]
    module: ClassVar[str]
    flat: ClassVar[bool] = True
    vectors: ClassVar[int] = 2

    @classmethod
    @abstractmethod
    def read(cls, text: str) -> Attention | None:
        """The attention that ``text`` names; None where it names another kind."""

    @staticmethod
    def parse(text: str) -> Attention:
        """The attention of a walk's text; see ``foveate.spec.parse_attention``."""
        from foveate.spec.kinds import parse_attention

        return parse_attention(text)

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def seen(self, t: int) -> list[tuple[int, int]]:
        """What unit ``t`` attends to, oldest first: the first unit and the number of units of every key.

        The definition that the reference computes; a key of several units is a group.
        """

    @abstractmethod
    def keys_read(self, units: int) -> int:
        """Keys that the newest of ``units`` units attends to; a group is one key."""

    def mean_keys_read(self, units: int) -> float:
        """``keys_read`` averaged over the positions of a sequence of ``units`` units."""
        if not units:
            return 0.0
        count = min(units, SAMPLES)
        return sum(self.keys_read((2 * i + 1) * units // (2 * count) + 1) for i in range(count)) / count

    def items_kept(self, units: int) -> int:
        """Items of ``vectors`` vectors that go on being needed after ``units`` units."""
        return self.keys_read(units)

    def parameters(self, head_dim: int) -> int:
        """Parameters per key-value head."""
        return 0

    def saved(self, level: Level, units: int) -> int:
        """Numbers that a layer keeps for its backward pass between its projections."""
        queries, keys = level.heads * level.head_dim, level.kv_heads * level.head_dim
        # the projection's output holds the values, so its queries and keys are kept too, beside the rotated ones
        return units * ((queries + 2 * keys) + (queries + keys) + queries)

    def saved_masks(self, units: int) -> tuple[int, int]:
        """Numbers of masks kept for all layers of a run: those that all rows share, and those of each row."""
        return 0, 0
