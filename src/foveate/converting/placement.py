"""Which layer of a source goes where in a walk, and how the moves between levels start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foveate.converting.source import Source
from foveate.errors import FoveateError
from foveate.spec import Run, parse_walk

if TYPE_CHECKING:
    from foveate.hf.modeling_foveate import FoveateForCausalLM

Placed = tuple[tuple[Run, tuple[int, ...]], ...]  # every run of the walk, and which layers of the source are its own


def place(source: Source, walk: str | None) -> Placed:
    """The source's layers in order along ``walk``; without one as the source has them, all on tokens.

    Raises:
        FoveateError: the walk takes another number of layers.
    """
    if walk is None:
        kinds = [layer.attention for layer in source.layers]
        begins = [i for i in range(len(kinds)) if i == 0 or kinds[i] != kinds[i - 1]]
        ends = [*begins[1:], len(kinds)]
        return tuple(
            (Run(stride=1, layers=end - begin, attention=kinds[begin]), tuple(range(begin, end)))
            for begin, end in zip(begins, ends, strict=True)
        )
    runs = parse_walk(walk)
    wanted, given = sum(run.layers for run in runs), len(source.layers)
    if wanted != given:
        raise FoveateError(f"walk '{walk}' has {wanted} layers and the model {given}; write a walk of {given}")
    placed, first = [], 0
    for run in runs:
        placed.append((run, tuple(range(first, first + run.layers))))
        first += run.layers
    return tuple(placed)


def start_moves(model: FoveateForCausalLM, source: Source, placed: Placed) -> None:
    """Let the moves between levels start where the model is closest to its source; now as in a new model."""
