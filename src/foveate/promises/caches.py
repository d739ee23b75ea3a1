"""A cache changes nothing: however a text is split over calls, and whatever is done to the cache between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from foveate.promises.promise import Case, Comparison, Promise
from foveate.promises.reading import Call, Step, Values, make_rows, read, split, together
from foveate.promises.subject import Subject

Sizes = tuple[int, ...]
SINGLE = 8  # tokens that are read one by one at most


def _has_cache(subject: Subject) -> str:
    if not subject.cache_name:
        return "its forward takes no cache"
    if getattr(subject.config, "is_encoder_decoder", False):
        return "its cache belongs to an encoder too"
    ids = subject.plain_ids()[:2][None].to(subject.device)
    with torch.no_grad():
        given = {"use_cache": True} if "use_cache" in subject.takes else {}
        found = subject.cache_of(subject.call(ids, **given))
    return "" if found is not None else "it hands back no cache"


def _then_single(length: int) -> Sequence[Sizes]:
    """A part at once and the rest token by token, as generate reads."""
    firsts = sorted({length - 1, max(length - SINGLE, 1)}, reverse=True)
    return [(first, *[1] * (length - first)) for first in firsts if first < length]


def _in_chunks(length: int) -> Sequence[Sizes]:
    """Several tokens at a time onto a cache that holds some."""
    half, third = length // 2, max(length // 3, 1)
    return [
        sizes
        for sizes in {(half, length - half), (1, length - 1), (third, third, length - 2 * third)}
        if min(sizes) > 0
    ]


def _split(subject: Subject, case: Case) -> Comparison:
    rows = make_rows(subject, [case.length] * case.rows, case.seed)
    return Comparison(
        expected=lambda: read(subject, [together(rows)]),
        actual=lambda: read(subject, split(rows, case.detail), cached=True),
        input=f"{[row.tolist() for row in rows]} in calls of {_counted(case.detail)}",
    )


def token_by_token(subject: Subject, case: Case) -> Comparison:
    """Rows and two tokens more, these from the cache: what generate does."""
    sizes = (case.length, 1, 1)
    return _split(subject, Case(rows=case.rows, length=sum(sizes), detail=sizes, seed=case.seed))


def _counted(sizes: Sizes) -> str:
    """``5, 1, 1, 1`` as ``5, 3 x 1``."""
    parts: list[list[int]] = []
    for size in sizes:
        if parts and parts[-1][1] == size:
            parts[-1][0] += 1
        else:
            parts.append([1, size])
    return ", ".join(f"{times} x {size}" if times > 1 else str(size) for times, size in parts)


def _ended(call: Call, *, counted: bool) -> Call:
    """A call of which everything counts, or nothing."""
    return call if counted else Call(ids=call.ids, columns=tuple(columns[:0] for columns in call.columns))


def _reordered(subject: Subject, case: Case) -> Comparison:
    rows = make_rows(subject, [case.length] * case.rows, case.seed)
    index = torch.tensor([case.rows - 1, *range(case.rows - 1)])
    if case.rows > 2:
        index[-1] = case.rows - 1  # a beam goes on twice and another ends
    after = make_rows(subject, [2] * case.rows, case.seed + 1)
    whole = [torch.cat((rows[source], new)) for source, new in zip(index.tolist(), after, strict=True)]
    steps: list[Step] = [
        _ended(together(rows), counted=False),
        lambda cache: cache.reorder_cache(index.to(subject.device)),
        *split(after, (1, 1)),
    ]
    last = torch.arange(case.length, case.length + 2, device=subject.device)
    return Comparison(
        expected=lambda: read(subject, [together(whole, last)]),
        actual=lambda: read(subject, steps, cached=True),
        input=f"{[row.tolist() for row in rows]}, reorder_cache({index.tolist()}), two tokens more",
    )


def _cut_back(subject: Subject, case: Case) -> Comparison:
    row, wrong, right = make_rows(subject, [case.length, case.detail, 2], case.seed)

    def record(cache: Any) -> None:
        if hasattr(cache, "activate_past_recording"):
            cache.activate_past_recording()

    steps: list[Step] = [
        _ended(together([row]), counted=False),
        record,
        *(_ended(call, counted=False) for call in split([wrong], [1] * case.detail)),
        lambda cache: cache.crop(-case.detail),
        *split([right], (1, 1)),
    ]
    whole = torch.cat((row, right))
    last = torch.arange(case.length, case.length + 2, device=subject.device)
    return Comparison(
        expected=lambda: read(subject, [together([whole], last)]),
        actual=lambda: read(subject, steps, cached=True),
        input=f"{row.tolist()}, {wrong.tolist()} read and taken back by crop(-{case.detail}), two tokens more",
    )


def _cache_can(action: str) -> Any:
    def lacking(subject: Subject) -> str:
        if reason := _has_cache(subject):
            return reason
        ids = subject.plain_ids()[:2][None].to(subject.device)
        with torch.no_grad():
            given = {"use_cache": True} if "use_cache" in subject.takes else {}
            cache = subject.cache_of(subject.call(ids, **given))
        if action == "crop" and getattr(cache, "is_croppable", True) is False:
            return "its cache says that it cannot be cut back"
        return "" if hasattr(cache, action) else f"its cache has no {action}"

    return lacking


def gradients(subject: Subject, compute: Any) -> Values:
    """The gradients of the mean loss of what ``compute`` reads, by parameter."""
    parameters = {name: p for name, p in subject.model.named_parameters() if p.requires_grad and p.numel() <= 1 << 22}
    with torch.enable_grad():
        loss = torch.stack([logits.float().logsumexp(-1).mean() for logits in compute().values()]).mean()
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(parameters, found, strict=True))


def _split_gradients(subject: Subject, case: Case) -> Comparison:
    rows = make_rows(subject, [case.length] * case.rows, case.seed)
    return Comparison(
        expected=lambda: gradients(subject, lambda: read(subject, [together(rows)])),
        actual=lambda: gradients(subject, lambda: read(subject, split(rows, case.detail), cached=True)),
        input=f"{[row.tolist() for row in rows]} in calls of {_counted(case.detail)}",
    )


def _gradients_through_cache(subject: Subject) -> str:
    if reason := _has_cache(subject):
        return reason
    return "" if any(p.requires_grad for p in subject.model.parameters()) else "its parameters take no gradients"


CACHED = Promise(
    name="cached",
    group="caches",
    says="reading on token by token from the cache gives what reading at once gives",
    compare=_split,
    lacking=_has_cache,
    details=_then_single,
    rows=(1, 2),
)
CHUNKED = Promise(
    name="chunked",
    group="caches",
    says="reading on from the cache several tokens at a time gives what reading at once gives",
    compare=_split,
    lacking=_has_cache,
    details=_in_chunks,
    shortest=3,
)
REORDERED = Promise(
    name="reordered",
    group="caches",
    says="rows of a cache that are reordered, as beam search does, go on as the rows they then are",
    compare=_reordered,
    lacking=_cache_can("reorder_cache"),
    rows=(2, 3),
    shortest=1,
)
CROPPED = Promise(
    name="cropped",
    group="caches",
    says="tokens taken back from a cache, as assisted decoding does, leave no trace",
    compare=_cut_back,
    lacking=_cache_can("crop"),
    details=lambda length: (1, 3),
    shortest=1,
)
SPLIT_GRADIENTS = Promise(
    name="split-gradients",
    group="training",
    says="gradients through the cache are those of one call",
    compare=_split_gradients,
    lacking=_gradients_through_cache,
    details=lambda length: [(length - 1, 1)] if length < 3 else [(length - 1, 1), (length - 2, 1, 1)],
    measure="gradients",
    quick=False,
)
