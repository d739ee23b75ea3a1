"""Look back: at which resolution a token sees each token before it, and how much attention that gets.

Legend: H heads, T tokens read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from foveate.errors import FoveateError
from foveate.pages.capture import Seen, capture
from foveate.pages.fields import Fields
from foveate.pages.shelf import Reader, Shelf
from foveate.pages.texts import Encoded, encode
from foveate.pages.work import Job, Work

MOST_TOKENS = 8192
GONE, NOT_YET = 0, -1  # what stands for the size of a key where there is none
REMEMBERED = 8  # captures: another head of the same one costs nothing


class Lookback:
    """Asks one reader at a time, and remembers the last few captures."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._captures: OrderedDict[tuple[Any, ...], list[Seen]] = OrderedDict()

    def work(self, fields: Fields) -> Work:
        """What a request asks for: ``model``, ``text``, ``token``, ``layer`` and ``head`` (None: averaged)."""
        name, text = fields.name("model"), fields.text("text")
        token = fields.whole("token", -1, MOST_TOKENS, default=-1)
        layer = fields.whole("layer", 0, 10_000, default=None)
        head = fields.whole("head", 0, 10_000, default=None)
        fields.end()

        def work(job: Job) -> dict[str, Any]:
            reader = self.shelf.reader(name)
            encoded = encode(reader, text, min(MOST_TOKENS, (reader.limit or MOST_TOKENS + 1) - 1))
            if token >= len(encoded):
                raise FoveateError(f"token: {token} is not one of the {len(encoded):,} of the text, which count from 0")
            _check_layer(reader, layer, head)
            at = token if token >= 0 else len(encoded) - 1
            return look_back(self._capture(reader, encoded, at, job), encoded, at, layer, head)

        return work

    def _capture(self, reader: Reader, encoded: Encoded, at: int, job: Job) -> list[Seen]:
        ids = encoded.after_mark[: at + 2]
        key = (reader.name, str(reader.folder), tuple(ids))
        if key not in self._captures:
            self._captures[key] = capture(reader, ids, lambda share: job.tell(progress=round(share, 3)))
        self._captures.move_to_end(key)
        while len(self._captures) > REMEMBERED:
            self._captures.popitem(last=False)
        return self._captures[key]


def look_back(
    seen: Sequence[Seen], encoded: Encoded, at: int, layer: int | None = None, head: int | None = None
) -> dict[str, Any]:
    """What token ``at`` of the text sees in one layer and head, or in all that are complete (None), averaged.

    The row of tokens begins with the mark that a document begins after. Of each token: the size of the keys by which it
    gets most of its attention (0: gone; -1: its unit is not complete yet), and the attention it gets, that of a key
    spread over its tokens.
    """
    chosen = [seen[layer]] if layer is not None else list(seen)
    T = at + 2
    size_T, by_size = np.full(T, GONE), dict[int, np.ndarray]()
    groups: dict[int, dict[str, float]] = {}
    known = [each for each in chosen if each.keys]
    for each in chosen:
        size_T[each.weights.shape[1] * each.stride :] = NOT_YET
    for each in known:
        masses_HL = each.masses().numpy()
        mass_L = masses_HL[head] if head is not None else masses_HL.mean(0)
        for (first, count), size, mass in zip(each.keys, each.sizes, mass_L.tolist(), strict=True):
            place = slice(first * each.stride, (first + count) * each.stride)
            # a weight that rounds to nothing is a way to be seen, too
            by_size.setdefault(size, np.zeros(T))[place] += max(mass, 1e-30) / size / len(known)
            group = groups.setdefault(size, {"keys": 0, "mass": 0.0})
            group["keys"] += 1 / len(known)
            group["mass"] += mass / len(known)
    mass_T = sum(by_size.values(), np.zeros(T))
    most_T = np.zeros(T)
    for size in sorted(by_size):
        more_T = by_size[size] > most_T
        size_T[more_T], most_T[more_T] = size, by_size[size][more_T]
    return {
        "pieces": ["", *encoded.pieces],
        "position": at + 1,
        "size": size_T.tolist(),
        "mass": [round(mass, 6) for mass in mass_T.tolist()],
        "groups": [{"size": size, **_rounded(groups[size])} for size in sorted(groups)],
        "tokens": {str(size): int((size_T == size).sum()) for size in np.unique(size_T).tolist()},
        "layers": [_of_layer(number, each, head) for number, each in enumerate(seen)],
    }


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
    mass: dict[int, float] = {}
    if each.keys:
        masses_HL = each.masses().numpy()
        mean_L = masses_HL[head] if head is not None and head < len(masses_HL) else masses_HL.mean(0)
        for size, share in zip(each.sizes, mean_L.tolist(), strict=True):
            mass[size] = mass.get(size, 0.0) + share
    return {
        "layer": number,
        "stride": each.stride,
        "attention": each.attention,
        "ran": each.ran,
        "heads": len(each.weights),
        "mass": {str(size): round(mass[size], 6) for size in sorted(mass)},
    }


def _rounded(group: dict[str, float]) -> dict[str, float]:
    return {"keys": round(group["keys"], 3), "mass": round(group["mass"], 6)}
