"""The shape of a model as users write it, in flags or a configuration file, turned into a spec."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError, shown
from foveate.limits import read_json
from foveate.presets import resolve_walk
from foveate.spec import MAX_WIDTH, HierarchySpec

DEFAULT_HIDDEN = 256
HEAD_WIDTH = 64

MAKE = ("head_dim", "norms", "qk_norm", "biases", "hidden_act", "attn_logit_softcapping", "ropes")
LEVEL_KEYS = {
    "width": "width",
    "hidden": "width",
    "heads": "heads",
    "kv_heads": "kv_heads",
    "ff": "feed_forward",
    "feed_forward": "feed_forward",
    "head_dim": "head_dim",
}


def config_values(args: Any) -> dict[str, Any]:
    """The keyword arguments of ``FoveateConfig`` that the shape flags mean, checked as one spec.

    ``args`` has the attributes ``walk, hidden, heads, kv_heads, ff, levels, pooling`` and ``expanding``.

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
    values |= _make_of(getattr(args, "from_", None))
    spec_from_config(values)
    return values


def _make_of(start: Any) -> dict[str, Any]:
    """What the layers of the model in the folder ``start`` are made of, beside what flags say: a conversion's."""
    path = Path(str(start)) / "config.json"
    if start is None or not path.is_file():
        return {}
    given = read_json(path)
    if not isinstance(given, dict) or given.get("model_type") != "foveate":
        return {}
    return {name: given[name] for name in MAKE if given.get(name) is not None}


def spec_from_config(values: Mapping[str, Any]) -> HierarchySpec:
    """The spec that a configuration's fields describe, whether from flags or from a run's ``config.json``."""
    if "walk" not in values:
        raise FoveateError("the configuration has no walk; it is not one of a Foveate model")
    return HierarchySpec.from_settings(values)


def read_levels(given: Iterable[str] | Mapping[Any, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Shapes per level as ``{"4": {"width": 512}}``, from texts such as ``4:width=512,heads=8`` or from a mapping."""
    if isinstance(given, Mapping):
        return {str(stride): _standard_keys(shape) for stride, shape in given.items()}
    words = given.split() if isinstance(given, str) else [word for text in given for word in str(text).split()]
    return dict(_read_level(word) for word in words)


def _read_level(word: str) -> tuple[str, dict[str, int]]:
    stride, colon, settings = word.partition(":")
    if not (colon and stride.isascii() and stride.isdigit()):
        raise FoveateError(f"--levels: cannot read {shown(word)}; write stride:key=value, such as 4:width=512,heads=8")
    shape = {}
    for setting in settings.split(","):
        match = re.fullmatch(r"([a-z_-]+)=([0-9]{1,9})", setting)
        key = LEVEL_KEYS.get(match[1].replace("-", "_")) if match else None
        if match is None or key is None:
            raise FoveateError(
                f"--levels: cannot read {shown(setting)} in {shown(word)}; "
                f"write width=, heads=, kv_heads=, head_dim= or ff= and a number"
            )
        shape[key] = int(match[2])
    return stride, shape


def _standard_keys(shape: Any) -> Any:
    """What is no shape, or an unknown key, is left for the spec to refuse."""
    if not isinstance(shape, Mapping):
        return shape
    return {LEVEL_KEYS.get(str(key).replace("-", "_"), key): value for key, value in shape.items()}


def _default_heads(hidden: int) -> int:
    """About one head per 64 of width, such that each has an even whole width; 1 where the width allows no more."""
    if not 1 <= hidden <= MAX_WIDTH:
        raise FoveateError(f"--hidden is {hidden}; it must be from 1 to {MAX_WIDTH}")
    wanted = max(1, hidden // HEAD_WIDTH)
    return next((heads for heads in range(wanted, 1, -1) if hidden % (2 * heads) == 0), 1)
