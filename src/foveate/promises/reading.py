"""Rows of tokens read in calls, and what came out, put back in the order of each row's own tokens.

Shape legend: B batch rows, T columns of a call, S columns so far, V vocabulary. A row is its token ids [N].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from foveate.promises.subject import Subject
from foveate.promises.watch import watched

Values = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call to the model.

    Args:
        ids: [B, T].
        columns: of each row the columns whose outputs count, in the order of the row's tokens.
        mask: attention mask [B, S], or None.
        positions: position ids [B, T], or None.
        names: numbers that the rows go by; default: their places.
    """

    ids: Tensor
    columns: tuple[Tensor, ...]
    mask: Tensor | None = None
    positions: Tensor | None = None
    names: tuple[int, ...] | None = None


Step = Call | Callable[[Any], None]  # between two calls something may be done to the cache


def make_rows(subject: Subject, lengths: Sequence[int], seed: int = 0) -> list[Tensor]:
    """Rows of ids [N] each: a shorter one begins like the longer one of its place, so that inputs shrink."""
    ids = subject.plain_ids()
    rows = []
    for place, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(1000 * seed + place)
        rows.append(ids[torch.randint(len(ids), (max(length, 512),), generator=generator)[:length]].to(subject.device))
    return rows


def together(rows: Sequence[Tensor], columns: Tensor | None = None) -> Call:
    """Rows of one length in one call; of all rows the given columns count, or all."""
    ids = torch.stack(tuple(rows))
    counted = torch.arange(ids.shape[1], device=ids.device) if columns is None else columns
    return Call(ids=ids, columns=(counted,) * len(rows))


def padded(subject: Subject, rows: Sequence[Tensor], side: str, columns: int) -> Call:
    """Rows in ``columns`` columns, with the mask, and with the positions that generate makes of it."""
    B, device = len(rows), subject.device
    ids = torch.full((B, columns), subject.padding_id, device=device)
    mask = torch.zeros(B, columns, dtype=torch.long, device=device)
    real = []
    for place, row in enumerate(rows):
        first = columns - len(row) if side == "left" else 0
        real.append(torch.arange(first, first + len(row), device=device))
        ids[place, real[-1]], mask[place, real[-1]] = row, 1
    positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, 0) if "position_ids" in subject.takes else None
    return Call(ids=ids, columns=tuple(real), mask=mask, positions=positions)


def split(rows: Sequence[Tensor], sizes: Sequence[int]) -> list[Call]:
    """Rows of one length in calls of these sizes."""
    ends = list(accumulate(sizes))
    return [together([row[end - size : end] for row in rows]) for size, end in zip(sizes, ends, strict=True)]


def read(
    subject: Subject, steps: Sequence[Step], *, cached: bool = False, embed: bool = False, **inputs: Any
) -> Values:
    """The logits [N, V] of every row's tokens, ``row 0`` and on, in order over all calls.

    Args:
        cached: hand each call the cache of the one before.
        embed: pass ``inputs_embeds`` instead of ids.
    """
    cache = None
    found: dict[str, list[Tensor]] = {}
    for step in steps:
        if not isinstance(step, Call):
            step(cache)
            continue
        given = dict(inputs)
        if step.mask is not None:
            given["attention_mask"] = step.mask
        if step.positions is not None:
            given["position_ids"] = step.positions
        if cached and "use_cache" in subject.takes:
            given["use_cache"] = True
        if cached and cache is not None:
            given[subject.cache_name] = cache
        if embed:
            embedding = subject.embedding()
            assert embedding is not None
            given["inputs_embeds"] = embedding(step.ids)
        names = step.names or tuple(range(len(step.ids)))
        with watched(subject.model, subject.names, dict(zip(names, step.columns, strict=True)), step.ids.shape):
            output = subject.call(step.ids, **given)
        cache = subject.cache_of(output) if cached else None
        logits = subject.logits(output, step.ids.shape[1])
        for place, (name, columns) in enumerate(zip(names, step.columns, strict=True)):
            if len(columns):
                found.setdefault(f"row {name}", []).append(logits[place, columns])
    return {row: torch.cat(parts) for row, parts in found.items()}
