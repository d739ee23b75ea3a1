"""The flags that shape a model, shared by every command that builds one."""

from __future__ import annotations

import argparse

from foveate.presets import PRESETS
from foveate.shape import DEFAULT_HIDDEN, HEAD_WIDTH, config_values, read_levels, spec_from_config
from foveate.spec import EXPANDINGS, POOLINGS

__all__ = ["add_shape_arguments", "config_values", "read_levels", "spec_from_config"]


def add_shape_arguments(parser: argparse.ArgumentParser, *, walk: str | None = None, several: bool = False) -> None:
    """Add --walk, --hidden, --heads, --kv-heads, --ff, --levels, --pooling and --expanding.

    ``walk`` is the default; ``several`` walks may be given by repeating the flag.
    """
    group = parser.add_argument_group("model")
    group.add_argument(
        "--walk",
        default=walk,
        action="append" if several else "store",
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
    group.add_argument("--pooling", choices=POOLINGS, default="mean", help="how units are made (default: mean)")
    group.add_argument(
        "--expanding", choices=EXPANDINGS, default="repeat", help="how units reach finer levels (default: repeat)"
    )
