"""Where two computations part: what every layer takes in and puts out, recorded by hooks, and the first that differs.

Shape legend: B batch rows, T columns of a call, N tokens of a row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Key = tuple[str, int]  # a module's name, and which of its uses within a call
Columns = Mapping[int, Tensor]  # of each row in the batch's order, by the number it goes by, the columns that count
Rows = dict[int, dict[int, Tensor]]  # of each row what belongs to its tokens, by the number of the call


@dataclass
class Seen:
    """What was recorded of one module."""

    kind: str
    takes: Rows = field(default_factory=dict)
    gives: Rows = field(default_factory=dict)


class Watch:
    """What a computation passes from layer to layer; ``gradients`` records what it passes back instead."""

    def __init__(self, *, gradients: bool = False) -> None:
        self.gradients = gradients
        self.seen: dict[Key, Seen] = {}
        self.finished: list[Key] = []  # in the order in which modules first gave an output, or an input's gradient
        self.calls = 0
        self.inside: list[str] = []  # modules entered and not left: where an exception came from

    def note(self, key: Key, kind: str, side: str, call: int, rows: Mapping[int, Tensor]) -> None:
        seen = self.seen.setdefault(key, Seen(kind))
        for row, part in rows.items():
            getattr(seen, side).setdefault(row, {})[call] = part
        if side == ("takes" if self.gradients else "gives") and key not in self.finished:
            self.finished.append(key)


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def watching(*, gradients: bool = False) -> Iterator[Watch]:
    """Within it, the calls that ``reading.read`` makes are recorded."""
    watch = Watch(gradients=gradients)
    token = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(token)


@contextlib.contextmanager
def watched(model: nn.Module, names: Mapping[nn.Module, str], columns: Columns, shape: Sequence[int]) -> Iterator[None]:
    """Records one call to ``model``, if anyone watches: of each row what belongs to its ``columns`` of the ids [B, T],
    under the number it goes by."""
    watch = _watch.get()
    if watch is None:
        yield
        return
    uses: dict[str, int] = {}
    open_keys: list[Key] = []
    call, watch.calls = watch.calls, watch.calls + 1

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        name = names[module]
        uses[name] = uses.get(name, -1) + 1
        open_keys.append((name, uses[name]))
        watch.inside.append(name)
        if value := _first_tensor((*args, *kwargs.values()), shape):
            record(open_keys[-1], module, "takes", value[0])

    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        watch.inside.pop()
        key = open_keys.pop()
        if value := _first_tensor(output, shape):
            record(key, module, "gives", value[0])

    def record(key: Key, module: nn.Module, side: str, value: Tensor) -> None:
        def note(value: Tensor) -> None:
            if (rows := _by_row(value.detach(), columns, shape)) is not None:
                watch.note(key, type(module).__name__, side, call, rows)

        if not watch.gradients:
            note(value)
        elif value.requires_grad:
            value.register_hook(note)

    hooks = []
    for module in names:
        hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        hooks.append(module.register_forward_hook(leave, with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _first_tensor(values: Any, shape: Sequence[int]) -> list[Tensor]:
    """The first tensor with the batch's rows, in whatever holds it; an empty list if there is none."""
    if isinstance(values, Tensor):
        return [values] if values.dim() >= 2 and values.shape[0] in (shape[0], shape[0] * shape[1], 1) else []
    if isinstance(values, Mapping):
        values = tuple(values.values())
    if isinstance(values, list | tuple):
        for value in values:
            if found := _first_tensor(value, shape):
                return found
    return []


def _by_row(value: Tensor, columns: Columns, shape: Sequence[int]) -> dict[int, Tensor] | None:
    """Of each row what belongs to its columns; of a stream that is not in columns, such as coarser units, all."""
    B, T = shape
    if value.shape[0] == B * T and value.shape[:2] != (B, T):
        value = value.view(B, T, *value.shape[1:])
    if value.shape[0] == 1 and B > 1:
        value = value.expand(B, *value.shape[1:])
    if value.shape[0] != B:
        return None
    whole = value.shape[1] != T
    rows = enumerate(columns.items())
    return {name: value[place] if whole else value[place, counted] for place, (name, counted) in rows if len(counted)}


def _distance(left: Rows, right: Rows) -> float | None:
    """The largest difference, or None where the two cannot be compared."""
    worst = 0.0
    for place in left.keys() & right.keys():
        one, other = (torch.cat([side[place][call] for call in sorted(side[place])]) for side in (left, right))
        if one.shape != other.shape:
            return None
        if one.numel():
            difference = (one.double() - other.double()).abs().nan_to_num(torch.inf, torch.inf)
            difference[one == other] = 0
            worst = max(worst, difference.max().item())
    return worst


def first_difference(expected: Watch, actual: Watch, noise: Watch, times: float) -> str | None:
    """The first layer that is given the same and gives something else; the innermost such.

    Args:
        noise: the expected computation in another order; what differs less than ``times`` as much is the same. With 0
            times only what is equal is the same.
    """

    def differs(key: Key, side: str) -> bool:
        one, other = (getattr(watch.seen[key], side) for watch in (expected, actual))
        far = _distance(one, other)
        if not far:
            return False
        floor = _distance(one, getattr(noise.seen[key], side)) if key in noise.seen else 0.0
        parts = [part for row in one.values() for part in row.values() if part.numel() and part.is_floating_point()]
        least = max((part.abs().max().item() * torch.finfo(part.dtype).eps for part in parts), default=0.0)
        return far > times * max(floor or 0.0, least)

    back = expected.gradients
    enters, leaves = ("gives", "takes") if back else ("takes", "gives")
    keys = [key for key in expected.finished if key in actual.seen]
    differing = [key for key in keys if differs(key, leaves)]
    starts = [key for key in differing if not differs(key, enters)]
    streams = [key for key in starts if not _is_rotary(expected.seen[key].kind)]
    if not streams:
        found = (starts or differing)[:1]
        return found[0][0] if found else None
    first = streams[0]
    # angles that are shifted as a whole change nothing: they are the cause only if the very first user is off
    kind = expected.seen[first].kind
    users = [key for key in keys if expected.seen[key].kind == kind]
    rotary = [key for key in differing if _is_rotary(expected.seen[key].kind)]
    return rotary[0][0] if rotary and users[0] == first and not back else first[0]


def _is_rotary(kind: str) -> bool:
    return "rotary" in kind.lower() or "rope" in kind.lower()
