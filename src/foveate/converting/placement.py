"""Which layer of a source goes where in a walk; the moves between levels start as in a new model."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from foveate.converting.source import Source
from foveate.errors import FoveateError
from foveate.spec import Run, parse_walk

Placed = tuple[tuple[Run, tuple[int, ...]], ...]  # every run of the walk, and which layers of the source are its own


def place(source: Source, walk: str | None) -> Placed:
    """The source's layers in order along ``walk``; without one as the source has them, all on tokens.

    Raises:
        FoveateError: the walk takes another number of layers.
    """
    if walk is None:
        each = [Run(stride=1, layers=1, attention=layer.attention) for layer in source.layers]
        return _by_rope([(run, (i,)) for i, run in enumerate(each)], source)
    runs = parse_walk(walk)
    wanted, given = sum(run.layers for run in runs), len(source.layers)
    if wanted != given:
        raise FoveateError(f"walk '{walk}' has {wanted} layers and the model {given}; write a walk of {given}")
    placed, first = [], 0
    for run in runs:
        placed.append((run, tuple(range(first, first + run.layers))))
        first += run.layers
    return _by_rope(placed, source)


def _by_rope(placed: list[tuple[Run, tuple[int, ...]]], source: Source) -> Placed:
    """The same layers in as few runs as have one rope and one kind of attention each."""
    runs: list[tuple[Run, tuple[int, ...]]] = []
    for run, layers in placed:
        for rope, some in groupby(layers, key=lambda i: source.layers[i].rope):
            here = replace(run, layers=0, rope=rope)
            before = runs.pop() if runs and runs[-1][1] and replace(runs[-1][0], layers=0) == here else (here, ())
            taken = (*before[1], *some)
            runs.append((replace(here, layers=len(taken)), taken))
        if not layers:
            runs.append((run, ()))
    return tuple(runs)
