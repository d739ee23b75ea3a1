"""Named walks: the families of multi-scale models, each at any number of layers and over any strides.

A preset is only a way to write a walk: ``hourglass(12, (1, 4))`` is the text ``"2@1 8@4 2@1"``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from foveate.errors import FoveateError, shown
from foveate.spec import EXAMPLE, Fovea, Run, parse_walk

STRIDES = (1, 4, 16, 64)

# layers per level, relative: the published 30-layer models over 1/4/16 keep 8, 8 and 14 layers
FINER, COARSEST = 4, 7


def vanilla(layers: int = 12) -> str:
    """A plain transformer: every layer on the tokens."""
    return _walk([(layers, 1)])


def retina(layers: int = 12, strides: Sequence[int] = STRIDES) -> str:
    """Every layer on the tokens, each seeing near text token by token and far text in groups of the coarser strides."""
    attention = Fovea(scales=tuple(strides[1:]))
    return _checked(str(Run(stride=1, layers=layers, attention=attention)))


def top_down(layers: int = 30, strides: Sequence[int] | None = None) -> str:
    """Coarsest scale first, each finer scale conditioned on it."""
    shares = _split("top_down", layers, strides)
    return _walk([(0, 1), *reversed(shares)])


def bottom_up(layers: int = 30, strides: Sequence[int] | None = None) -> str:
    """Tokens first, then ever coarser scales, all of which reach the prediction."""
    shares = _split("bottom_up", layers, strides)
    return _walk([*shares, (0, 1)])


def hourglass(layers: int = 30, strides: Sequence[int] | None = None) -> str:
    """Down to the coarsest scale and up again, every finer scale with half of its layers on either side."""
    *outer, middle = _split("hourglass", layers, strides, sides=2)
    half = [(count // 2, stride) for count, stride in outer]
    return _walk([*half, middle, *reversed(half)])


def deep(layers: int = 30, strides: Sequence[int] = (1, 4, 16)) -> str:
    """Three layers on tokens, one before all units and two after, up to eight on each middle scale, the rest coarsest.

    What won among the deep walks that were tried (docs/results.md).
    """
    middle = list(strides[1:-1])
    if len(strides) == 1:
        raise FoveateError("preset deep over strides 1 has no coarser scale; write them rising from 1: 1/4/16")
    _check_shape("deep", layers, strides, least=4 + 2 * len(middle))
    side = min(4, max(1, (layers - 3) // (4 * max(1, len(middle)))))
    down = [(side, stride) for stride in middle]
    coarsest = layers - 3 - 2 * side * len(middle)
    return _walk([(1, 1), *down, (coarsest, strides[-1]), *reversed(down), (2, 1)])


PRESETS: dict[str, Callable[..., str]] = {
    "vanilla": vanilla,
    "top_down": top_down,
    "bottom_up": bottom_up,
    "hourglass": hourglass,
    "retina": retina,
    "deep": deep,
}


def preset(name: str, layers: int | None = None, strides: Sequence[int] | None = None) -> str:
    """The walk of the preset called ``name``, with its own default for what is not given.

    Raises:
        FoveateError: no such preset, or too few layers to have one on every level.
    """
    if name not in PRESETS:
        raise FoveateError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    if name == "vanilla" and strides is not None and tuple(strides) != (1,):
        raise FoveateError("preset vanilla works on the tokens alone; leave out its strides or choose another preset")
    given: dict[str, object] = {} if layers is None else {"layers": layers}
    if strides is not None and name != "vanilla":
        given["strides"] = tuple(strides)
    return PRESETS[name](**given)


def resolve_walk(text: str) -> str:
    """The walk that ``text`` means: a walk itself, or a preset as ``NAME[:LAYERS][@STRIDES]``.

    ``hourglass``, ``hourglass:24`` and ``hourglass:24@1/4/16`` are presets; names may be written with ``-`` for ``_``.

    Raises:
        FoveateError: neither a preset nor a valid walk.
    """
    match = re.fullmatch(
        r"([a-z][a-z_-]*)(?::([0-9]{1,6}))?(?:@([0-9]{1,6}(?:/[0-9]{1,6}){0,16}))?", text.strip().lower()
    )
    if match and (name := match[1].replace("-", "_")) in PRESETS:
        layers = int(match[2]) if match[2] else None
        strides = [int(stride) for stride in match[3].split("/")] if match[3] else None
        return preset(name, layers, strides)
    if text.strip() and (match or not re.search("[0-9]", text)):
        raise FoveateError(f"walk {shown(text)} is neither a preset ({', '.join(PRESETS)}) nor a walk; {EXAMPLE}")
    return _checked(text)


def _split(name: str, layers: int, strides: Sequence[int] | None, sides: int = 1) -> list[tuple[int, int]]:
    """(layers, stride) of each level, finest first; a finer level gets a multiple of ``sides`` layers.

    Without strides, as many of 1, 4, 16 and 64 as leave each finer level four layers, and two levels at least.
    """
    if strides is None:
        levels = max(2, min(len(STRIDES), (layers - COARSEST) // FINER + 1))
        strides = STRIDES[:levels]
    finer = len(strides) - 1
    _check_shape(name, layers, strides, least=finer * sides + 1)
    parts = FINER * finer + COARSEST
    counts = [sides * max(1, FINER * layers // (parts * sides))] * finer
    # what rounding down has left goes to the finest levels first: they are the ones that run short
    spare = layers - sum(counts) - round(COARSEST * layers / parts)
    for i in range(min(finer, spare // sides)):
        counts[i] += sides
    return list(zip([*counts, layers - sum(counts)], strides, strict=True))


def _check_shape(name: str, layers: int, strides: Sequence[int], *, least: int) -> None:
    """Raise a ``FoveateError`` unless strides rise from 1 and there are ``least`` layers."""
    if list(strides[:1]) != [1] or list(strides) != sorted(set(strides)):
        raise FoveateError(
            f"preset {name}: strides are {'/'.join(map(str, strides))}; write them rising from 1: 1/4/16"
        )
    if layers < least:
        raise FoveateError(
            f"preset {name} over strides {'/'.join(map(str, strides))} needs at least {least} layers, got {layers}; "
            f"give it more layers or fewer strides"
        )


def _walk(runs: Sequence[tuple[int, int]]) -> str:
    return _checked(" ".join(f"{layers}@{stride}" for layers, stride in runs))


def _checked(walk: str) -> str:
    return " ".join(map(str, parse_walk(walk)))
