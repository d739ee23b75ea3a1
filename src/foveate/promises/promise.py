"""What a promise is: a short description, and two computations that must agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from foveate.promises.reading import Values
from foveate.promises.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Case:
    """An input: ``rows`` rows of ``length`` tokens, and what else a promise varies, such as the sizes of calls."""

    rows: int
    length: int
    detail: Any = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two computations of the same values by name, and how a person would say what the input was.

    Args:
        watchable: whether hooks can follow both, to find where they part.
        followed: another pair that shows the same fault, for hooks to follow instead.
    """

    expected: Callable[[], Values]
    actual: Callable[[], Values]
    input: str
    watchable: bool = True
    followed: Comparison | None = None


def always(subject: Subject) -> str:
    return ""


def undetailed(length: int) -> Sequence[Any]:
    return (None,)


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One promise a causal language model makes.

    Args:
        name: as commands and reports write it.
        group: the heading it stands under.
        says: what is promised, as a sentence without a subject.
        compare: the two computations for a case.
        lacking: why a model does not offer it, or nothing.
        details: what to try at a length, the least first.
        rows: the fewest rows it can be seen in, and the most that are tried.
        shortest: the shortest row it makes sense for.
        longest: the length to check at, where it is not that of the others.
        measure: what the values are: logits, loss, gradients (each with its own scale), reach (shares of a gradient,
            of which nothing is allowed), or drift (how far off it is, against how far it may be). Rounding is measured
            once for all promises of a measure.
        exact: nothing at all may differ.
        finer: whether a difference that is gone in a finer dtype was rounding.
        quick: a part of ``--quick``.
    """

    name: str
    group: str
    says: str
    compare: Callable[[Subject, Case], Comparison]
    lacking: Callable[[Subject], str] = always
    details: Callable[[int], Sequence[Any]] = undetailed
    rows: tuple[int, int] = (1, 1)
    shortest: int = 2
    longest: int | None = None
    measure: str = "logits"
    exact: bool = False
    finer: bool = True
    quick: bool = True
