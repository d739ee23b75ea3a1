"""The flags that shape a model, shared by every command that builds one."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from typing import Any

from foveate.errors import FoveateError
from foveate.presets import PRESETS, resolve_walk
from foveate.spec import EXPANDINGS, POOLINGS, HierarchySpec

DEFAULT_HIDDEN = 256
HEAD_WIDTH = 64

LEVEL_KEYS = {
    "width": "width",
    "hidden": "width",
    "heads": "heads",
    "kv_heads": "kv_heads",
    "ff": "feed_forward",
    "feed_forward": "feed_forward",
}


def add_shape_arguments(parser: argparse.ArgumentParser, *, walk: str | None = None) -> None:
    """Add --walk, --hidden, --heads, --kv-heads, --ff, --levels, --pooling and --expanding; ``walk`` is the default."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--walk",
        default=walk,
        metavar="W",
        help="layers@stride in order, such as '2@1 8@4 2@1', or a preset with an optional number of layers, such as "
        f"hourglass:24; presets: {', '.join(PRESETS)}" + (f" (default: {walk})" if walk else ""),
    )
    group.add_argument(
        "--hidden", type=int, default=DEFAULT_HIDDEN, metavar="N", help=f"width of a layer (default: {DEFAULT_HIDDEN})"
    )
    group.add_argument(
        "--heads", type=int, metavar="N", help=f"attention heads (default: one per {HEAD_WIDTH} of width)"
    )
    group.add_argument("--kv-heads", type=int, metavar="N", help="key and value heads (default: as many as heads)")
    group.add_argument("--ff", type=int, metavar="N", help="feed-forward width (default: 8/3 of the width)")
    group.add_argument(
        "--levels",
        nargs="+",
        metavar="S:K=V,...",
        help="a shape of its own for the level of stride S, such as 4:width=512,heads=8; "
        "keys: width, heads, kv_heads, ff",
    )
    group.add_argument("--pooling", choices=POOLINGS, default="linear", help="how units are made (default: linear)")
    group.add_argument(
        "--expanding", choices=EXPANDINGS, default="linear", help="how units reach finer levels (default: linear)"
    )


def config_values(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of ``FoveateConfig`` that the shape flags mean, checked as one spec.

    Raises:
        FoveateError: no walk, or values that make no model.
    """
    if not args.walk:
        raise FoveateError("--walk is missing; write for example --walk '2@1 8@4 2@1' or --walk hourglass:12")
    values = {
        "walk": resolve_walk(str(args.walk)),
        "hidden_size": args.hidden,
        "num_attention_heads": args.heads if args.heads is not None else _default_heads(args.hidden),
        "num_key_value_heads": args.kv_heads,
        "intermediate_size": args.ff,
        "levels": read_levels(args.levels) if args.levels else None,
        "pooling": args.pooling,
        "expanding": args.expanding,
    }
    spec_from_config(values)
    return values


def spec_from_config(values: Mapping[str, Any]) -> HierarchySpec:
    """The spec that a configuration's fields describe, whether from flags or from a run's ``config.json``."""
    if "walk" not in values:
        raise FoveateError("the configuration has no walk; it is not one of a Foveate model")
    return HierarchySpec.parse(
        values["walk"],
        width=values.get("hidden_size", DEFAULT_HIDDEN),
        heads=values.get("num_attention_heads", 4),
        kv_heads=values.get("num_key_value_heads"),
        feed_forward=values.get("intermediate_size"),
        levels=values.get("levels"),
        pooling=values.get("pooling", "linear"),
        expanding=values.get("expanding", "linear"),
    )


def read_levels(given: Iterable[str] | Mapping[Any, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Shapes per level as ``{"4": {"width": 512}}``, from texts such as ``4:width=512,heads=8`` or from a mapping."""
    if isinstance(given, Mapping):
        return {str(stride): dict(shape) for stride, shape in given.items()}
    words = given.split() if isinstance(given, str) else [word for text in given for word in str(text).split()]
    return dict(_read_level(word) for word in words)


def _read_level(word: str) -> tuple[str, dict[str, int]]:
    stride, colon, settings = word.partition(":")
    if not (colon and stride.isascii() and stride.isdigit()):
        raise FoveateError(f"--levels: cannot read {word!r}; write stride:key=value, such as 4:width=512,heads=8")
    shape = {}
    for setting in settings.split(","):
        match = re.fullmatch(r"([a-z_-]+)=([0-9]{1,9})", setting)
        key = LEVEL_KEYS.get(match[1].replace("-", "_")) if match else None
        if match is None or key is None:
            raise FoveateError(
                f"--levels: cannot read {setting!r} in {word!r}; write width=, heads=, kv_heads= or ff= and a number"
            )
        shape[key] = int(match[2])
    return stride, shape


def _default_heads(hidden: int) -> int:
    """About one head per 64 of width, such that each has an even whole width; 1 where the width allows no more."""
    wanted = max(1, hidden // HEAD_WIDTH)
    return next((heads for heads in range(wanted, 1, -1) if hidden % (2 * heads) == 0), 1)
