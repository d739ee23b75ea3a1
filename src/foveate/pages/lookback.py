"""Look back: at which resolution a token sees each token before it, and how much attention that gets.

Legend: H heads, T tokens read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foveate.errors import FoveateError
from foveate.pages.capture import Seen, capture_walk
from foveate.pages.fields import Fields
from foveate.pages.foreign import capture_weights, capture_zoomed
from foveate.pages.shelf import Reader, Shelf
from foveate.pages.texts import Encoded, encode
from foveate.pages.work import Job, Work
from foveate.zooming import ZoomPlan

MOST_TOKENS = 8192
GONE, NOT_YET, OPENED = 0, -1, -2  # what stands for the size of a key where there is none, or it was opened
REMEMBERED = 8  # captures: another head of the same one costs nothing
DEFAULT_OPENED = ZoomPlan().opened


class Lookback:
    """Asks one reader at a time, and remembers the last few captures."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._captures: OrderedDict[tuple[Any, ...], list[Seen]] = OrderedDict()

    def work(self, fields: Fields) -> Work:
        """What a request asks for: ``model``, ``text``, ``token``, ``layer`` and ``head`` (None: averaged).

        With ``near`` another model than a walk zooms, keeping so many tokens sharp and opening ``opened`` groups.
        """
        name, text = fields.name("model"), fields.text("text")
        token = fields.whole("token", -1, MOST_TOKENS, default=-1)
        layer = fields.whole("layer", 0, 10_000, default=None)
        head = fields.whole("head", 0, 10_000, default=None)
        near = fields.whole("near", 1, MOST_TOKENS, default=None)
        opened = fields.whole("opened", 0, MOST_TOKENS, default=DEFAULT_OPENED)
        fields.end()
        plan = ZoomPlan(near=near, opened=opened) if near is not None else None

        def work(job: Job) -> dict[str, Any]:
            reader = self.shelf.reader(name)
            encoded = encode(reader, text, min(MOST_TOKENS, (reader.limit or MOST_TOKENS + 1) - 1))
            if token >= len(encoded):
                raise FoveateError(f"token: {token} is not one of the {len(encoded):,} of the text, which count from 0")
            _check_layer(reader, layer, head)
            if plan is not None and reader.spec is not None:
                raise FoveateError(f"near: {name} reads far text as its walk says ({reader.spec}); zoom is for others")
            job.tell(pieces=encoded.pieces)  # the text stands there before it is coloured
            at = token if token >= 0 else len(encoded) - 1
            return look_back(self._capture(reader, encoded, at, plan, job), encoded, at, layer, head)

        return work

    def _capture(self, reader: Reader, encoded: Encoded, at: int, plan: ZoomPlan | None, job: Job) -> list[Seen]:
        ids = encoded.after_mark[: at + 2]
        key = (reader.name, str(reader.folder), tuple(ids), plan)
        if key not in self._captures:
            self._captures[key] = capture(reader, ids, plan, lambda share: job.tell(progress=round(share, 3)))
        self._captures.move_to_end(key)
        while len(self._captures) > REMEMBERED:
            self._captures.popitem(last=False)
        return self._captures[key]


def capture(
    reader: Reader, ids: list[int], plan: ZoomPlan | None = None, advance: Callable[[float], Any] = lambda share: None
) -> list[Seen]:
    """What the last of ``ids`` sees in each layer, in the order in which they work; with a plan, while it zooms.

    Args:
        advance: told the share that is done, which may stop it by an exception.

    Raises:
        FoveateError: a model of another kind that cannot show its attention, or cannot zoom.
    """
    if reader.spec is not None:
        return capture_walk(reader, ids, advance)
    if plan is not None:
        return capture_zoomed(reader, ids, plan, advance)
    return capture_weights(reader, ids, advance)


def look_back(
    seen: Sequence[Seen], encoded: Encoded, at: int, layer: int | None = None, head: int | None = None
) -> dict[str, Any]:
    """What token ``at`` of the text sees in one layer and head, or in all that are complete (None), averaged.

    The row of tokens begins with the mark that a document begins after. Of each token: the size of the keys by which it
    gets most of its attention (0: gone; -1: its unit is not complete yet; -2: opened by zoom), and the attention it
    gets, that of a unit spread over its tokens.
    """
    chosen = [seen[layer]] if layer is not None else list(seen)
    T = at + 2
    size_T, by_size = np.full(T, GONE), dict[int, np.ndarray]()
    groups: dict[int, dict[str, float]] = {}
    known = [each for each in chosen if each.size.any()]
    for each in chosen:
        size_T[each.weights.shape[1] * each.stride :] = NOT_YET
    for each in known:
        for size, way in _ways(each, head).items():
            place = slice(0, len(way.mass) * each.stride)
            # a weight that rounds to nothing is a way to be seen, too
            mass_S = np.maximum(way.mass, 1e-30 * way.seen) / each.stride / len(known)
            by_size.setdefault(size, np.zeros(T))[place] += mass_S.repeat(each.stride)
            group = groups.setdefault(size, {"keys": 0.0, "mass": 0.0})
            group["keys"] += way.keys / len(known)
            group["mass"] += float(way.mass.sum()) / len(known)
    mass_T = sum(by_size.values(), np.zeros(T))
    most_T = np.zeros(T)
    for size in _in_order(by_size):
        more_T = by_size[size] > most_T
        size_T[more_T], most_T[more_T] = size, by_size[size][more_T]
    return {
        "pieces": ["", *encoded.pieces],
        "position": at + 1,
        "size": size_T.tolist(),
        "mass": [round(mass, 6) for mass in mass_T.tolist()],
        "groups": [{"size": size, **_rounded(groups[size])} for size in _in_order(groups)],
        "tokens": {str(size): int((size_T == size).sum()) for size in np.unique(size_T).tolist()},
        "layers": [_of_layer(number, each, head) for number, each in enumerate(seen)],
    }


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a layer sees some units: as part of keys of one size, or opened."""

    keys: float  # so many, by the mean over heads
    mass: np.ndarray  # the attention of each unit, [S]
    seen: np.ndarray  # whether any head sees it so, [S]


def _ways(each: Seen, head: int | None) -> dict[int, Way]:
    """By the tokens of a key, or ``OPENED``; of one head, or of all by their mean."""
    weights_HS = each.weights.double().numpy()
    size_HS = np.broadcast_to(each.size.numpy(), weights_HS.shape)
    opened_HS = np.zeros_like(size_HS, bool) if each.opened is None else each.opened.numpy()
    if head is not None and head < len(weights_HS):
        weights_HS, size_HS, opened_HS = (x_HS[head : head + 1] for x_HS in (weights_HS, size_HS, opened_HS))
    way_HS = np.where(opened_HS, OPENED, size_HS * each.stride)
    ways = {}
    for way in _in_order(np.unique(way_HS).tolist()):
        so_HS = way_HS == way
        if way:
            keys = float((so_HS / np.maximum(size_HS, 1)).sum(1).mean())
            ways[way] = Way(keys=keys, mass=(weights_HS * so_HS).mean(0), seen=so_HS.any(0))
    return ways


def _in_order(sizes: Iterable[int]) -> list[int]:
    """The sharpest first; what zoom has opened is sharp."""
    return sorted(sizes, key=lambda size: (size if size > 0 else 1.5, size))


def _check_layer(reader: Reader, layer: int | None, head: int | None) -> None:
    """Raise a ``FoveateError`` unless the model has that layer, and all layers that are meant that head."""
    config: Any = reader.model.config.get_text_config()
    layers = config.num_hidden_layers if reader.spec is None else reader.spec.n_layers
    if layer is not None and layer >= layers:
        raise FoveateError(f"layer: {layer} is not one of the {layers} layers, which count from 0")
    heads = getattr(config, "num_attention_heads", 0)
    if reader.spec is not None:
        heads = min(reader.spec.level(run.stride).heads for run in reader.spec.runs if run.layers)
    if head is not None and head >= heads:
        raise FoveateError(f"head: {head} is not one of the {heads} heads, which count from 0")


def _of_layer(number: int, each: Seen, head: int | None) -> dict[str, Any]:
    return {
        "layer": number,
        "stride": each.stride,
        "attention": each.attention,
        "ran": each.ran,
        "heads": len(each.weights),
        "mass": {str(size): round(float(way.mass.sum()), 6) for size, way in _ways(each, head).items()},
    }


def _rounded(group: dict[str, float]) -> dict[str, float]:
    return {"keys": round(group["keys"], 3), "mass": round(group["mass"], 6)}
