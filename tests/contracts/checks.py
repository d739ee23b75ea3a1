"""The contract of a decoder, point by point, as plain functions that raise AssertionError where it is broken.

Shape legend: B rows, T tokens, D width. A row is a sequence [T, D] of its own length. A schedule says how many tokens
each row reads in each call.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from foveate.errors import FoveateError
from foveate.model.cache import StepCache
from foveate.model.decoder import Decoder
from foveate.model.reference import reference
from foveate.spec import Expand, HierarchySpec, Pool, Run, Step, Window

Schedule = Sequence[Sequence[int]]
EXACT = 1e-10  # for fp64


def make_decoder(spec: HierarchySpec, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Decoder:
    """A decoder whose parameters are all random: what starts at zero would hide its part of the model."""
    decoder = Decoder(spec).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            if "norm" in name:
                parameter += 1
    return decoder


def make_rows(decoder: Decoder, lengths: Sequence[int], *, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    width, dtype = decoder.spec.levels[0].width, decoder.norm.weight.dtype
    return [torch.randn(length, width, generator=generator, dtype=torch.float64).to(dtype) for length in lengths]


def read(
    decoder: Decoder,
    rows: Sequence[Tensor],
    schedule: Schedule | None = None,
    cache: StepCache | None = None,
    extra_columns: int = 0,
) -> list[Tensor]:
    """The features of each row, read together in the calls of ``schedule``; one call without a cache by default.

    Columns that pad a row are filled with large numbers, which nothing may see.
    """
    if schedule is None:
        schedule = [[len(row) for row in rows]]
    elif cache is None:
        cache = decoder.make_cache(len(rows))
    features: list[list[Tensor]] = [[row.new_zeros(0, row.shape[1])] for row in rows]
    done = np.zeros(len(rows), dtype=np.int64)
    for counts in map(np.array, schedule):
        columns = int(counts.max()) + extra_columns
        padded = [
            torch.cat((row[start : start + count], row.new_full((columns - count, row.shape[1]), 1e3)))
            for row, start, count in zip(rows, done, counts, strict=True)
        ]
        alike = bool((counts == columns).all())
        out = decoder(torch.stack(padded), cache, None if alike else counts)
        assert out.shape == (len(rows), columns, rows[0].shape[1])
        for row_features, row_out, count in zip(features, out, counts, strict=True):
            row_features.append(row_out[:count])
        done += counts
    return [torch.cat(row_features) for row_features in features]


def assert_same(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Equal to ``tolerance``, relative to the largest expected value where that is above 1."""
    assert actual.shape == expected.shape, f"{what}: shape {list(actual.shape)}, expected {list(expected.shape)}"
    if actual.numel():
        error = (actual - expected).abs().max().item() / max(1.0, expected.abs().max().item())
        assert error <= tolerance, f"{what}: off by {error:.1e}, allowed {tolerance:.0e}"


def check_causal(decoder: Decoder, length: int) -> None:
    """The gradient of the output at t with respect to any later input is exactly 0."""
    # row t of a batch of copies is asked for its output t alone, so that one backward gives all gradients
    x_TTD = make_rows(decoder, [length])[0].expand(length, -1, -1).clone().requires_grad_()
    each = torch.arange(length)
    decoder(x_TTD)[each, each].sin().sum().backward()
    assert x_TTD.grad is not None
    reach_TT = x_TTD.grad.abs().amax(-1)
    later = reach_TT.triu(1).nonzero()
    assert not len(later), f"output {later[0, 0]} depends on the later input {later[0, 1]}"
    assert reach_TT.diagonal().all(), "an output does not depend on its own input"


def check_calls(
    decoder: Decoder, schedule: Schedule, *, tolerance: float = EXACT, extra_columns: int = 0, cached: bool = True
) -> None:
    """Split-invariant and row-independent: rows read together over the calls of ``schedule`` give each row's features
    in one call alone."""
    lengths = np.sum(schedule, axis=0)
    rows = make_rows(decoder, lengths.tolist())
    with torch.no_grad():
        together = read(decoder, rows, schedule if cached else None, extra_columns=extra_columns)
        for index, (row, features) in enumerate(zip(rows, together, strict=True)):
            if len(row):
                alone = decoder(row[None])[0]
                assert_same(features, alone, tolerance, f"row {index} of lengths {lengths}, calls {schedule}")


def gradients(decoder: Decoder, rows: Sequence[Tensor], features: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
    """Of one loss over all features with respect to every parameter and every row."""
    loss = sum((row.sin().sum() for row in features), start=rows[0].new_zeros(()))
    named = [*decoder.named_parameters(), *((f"row {index}", row) for index, row in enumerate(rows))]
    found = torch.autograd.grad(loss, [leaf for _, leaf in named], allow_unused=True, materialize_grads=True)
    return [(name, gradient) for (name, _), gradient in zip(named, found, strict=True)]


def check_gradients(decoder: Decoder, schedule: Schedule, *, tolerance: float = EXACT) -> None:
    """Gradients survive the cache: those of any split are those of one call, with respect to everything."""
    rows = [row.requires_grad_() for row in make_rows(decoder, np.sum(schedule, axis=0).tolist())]
    split = gradients(decoder, rows, read(decoder, rows, schedule))
    whole = gradients(decoder, rows, [decoder(row[None])[0] if len(row) else row for row in rows])
    for (name, actual), (_, expected) in zip(split, whole, strict=True):
        assert_same(actual, expected, tolerance, f"gradient of {name}, calls {schedule}")


def check_packed(decoder: Decoder, lengths: Sequence[Sequence[int]], *, tolerance: float = EXACT) -> None:
    """Packed: documents of ``lengths`` in each row of equal sum give what they give alone, forward and gradients."""
    rows = [row.requires_grad_() for row in make_rows(decoder, [sum(row) for row in lengths])]
    documents = torch.tensor([[number for number, n in enumerate(row) for _ in range(n)] for row in lengths])
    packed = list(decoder(torch.stack(rows), documents=documents))
    alone = [
        torch.cat([decoder(document[None])[0] for document in row.split(list(of_row))])
        for row, of_row in zip(rows, lengths, strict=True)
    ]
    for index, (actual, expected) in enumerate(zip(packed, alone, strict=True)):
        assert_same(actual, expected, tolerance, f"row {index} of documents {lengths}")
    both = gradients(decoder, rows, packed), gradients(decoder, rows, alone)
    for (name, actual), (_, expected) in zip(*both, strict=True):
        assert_same(actual, expected, tolerance, f"gradient of {name}, documents {lengths}")


def check_clock(decoder: Decoder, schedule: Schedule) -> dict[int, int]:
    """A layer of stride k runs only on rows in which a unit of k tokens completes, and only on the new units.

    Returns the calls to a layer of each stride.
    """
    seen: dict[nn.Module, list[tuple[int, int]]] = {}
    strides: dict[nn.Module, int] = {}
    hooks = []
    for step, move in zip(decoder.steps, decoder.spec.steps, strict=True):
        for layer in step.layers if isinstance(move, Run) else ():
            seen[layer], strides[layer] = [], move.stride
            hooks.append(layer.register_forward_hook(lambda layer, x, _: seen[layer].append(tuple(x[0].shape[:2]))))
    try:
        with torch.no_grad():
            read(decoder, make_rows(decoder, np.sum(schedule, axis=0).tolist()), schedule)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, calls in seen.items():
        units = np.diff(np.cumsum([np.zeros_like(schedule[0]), *schedule], axis=0) // strides[layer], axis=0)
        expected = [(np.count_nonzero(new), new.max()) for new in units if new.any()]
        assert calls == expected, f"stride {strides[layer]} ran on (rows, units) {calls}, expected {expected}"
    return {strides[layer]: len(calls) for layer, calls in seen.items()}


def check_oracle(decoder: Decoder, lengths: Sequence[int], *, tolerance: float = EXACT) -> list[Tensor]:
    """Rows read together equal the reference: features, and gradients of all parameters and inputs.

    Returns the gradients, parameters first.
    """
    rows = [row.requires_grad_() for row in make_rows(decoder, lengths)]
    fast, slow = read(decoder, rows), [reference(decoder, row) for row in rows]
    both = gradients(decoder, rows, fast), gradients(decoder, rows, slow)
    for index, (actual, expected) in enumerate(zip(fast, slow, strict=True)):
        assert_same(actual, expected, tolerance, f"row {index} of lengths {list(lengths)}")
    for (name, actual), (_, expected) in zip(*both, strict=True):
        assert_same(actual, expected, tolerance, f"gradient of {name}, lengths {list(lengths)}")
    return [gradient for _, gradient in both[1]]


def check_take_rows(decoder: Decoder, before: Sequence[int], index: Sequence[int], after: Schedule) -> None:
    """A cache whose rows are reordered, repeated or left out goes on as the rows it now holds."""
    old = make_rows(decoder, before)
    new = make_rows(decoder, np.sum(after, axis=0).tolist(), seed=2)
    cache = decoder.make_cache(len(before))
    with torch.no_grad():
        read(decoder, old, [before], cache)
        cache.take_rows(torch.tensor(index))
        features = read(decoder, new, after, cache)
        for i, (source, row) in enumerate(zip(index, new, strict=True)):
            whole = decoder(torch.cat((old[source], row))[None])[0]
            assert_same(features[i], whole[before[source] :], EXACT, f"row {i}, once row {source}")


def check_append_rows(
    decoder: Decoder, groups: Sequence[Sequence[int]], after: Schedule, *, recorded: Sequence[int] | None = None
) -> None:
    """Caches of any rows, ``groups`` of lengths, joined one after another: each row goes on as it would have alone.

    What is appended stays as it was.
    """
    old = [make_rows(decoder, lengths, seed=seed) for seed, lengths in enumerate(groups, 3)]
    new = make_rows(decoder, np.sum(after, axis=0).tolist(), seed=2)
    with torch.no_grad():
        caches = []
        for rows, slack in zip(old, recorded or [0] * len(old), strict=True):
            caches.append(decoder.make_cache(len(rows)))
            caches[-1].record_past(slack)
            read(decoder, rows, [[len(row) for row in rows]], caches[-1])
        joined, *others = [copy.deepcopy(cache) for cache in caches]
        for cache in others:
            joined.append_rows(cache)
        held = [row for rows in old for row in rows]
        features = read(decoder, new, after, joined)
        for i, (row, more) in enumerate(zip(held, new, strict=True)):
            assert_same(features[i], decoder(torch.cat((row, more))[None])[0][len(row) :], EXACT, f"joined row {i}")
        for cache, untouched, rows in zip(others, caches[1:], old[1:], strict=True):
            some = make_rows(decoder, [5] * len(rows), seed=1)
            for again, expected in zip(
                read(decoder, some, [[5] * len(rows)], cache),
                read(decoder, some, [[5] * len(rows)], untouched),
                strict=True,
            ):
                assert torch.equal(again, expected), "appending changed the cache that was appended"
        if recorded:
            joined.remove_last(min(max(recorded), min(map(len, new))))


def check_remove_last(
    decoder: Decoder, lengths: Sequence[int], rounds: Sequence[tuple[int, int]], recorded: int | None = None
) -> None:
    """Reading tokens and taking some back, round by round (read, removed), leaves no trace of those.

    Taking back is refused where the cache no longer can, which may only be beyond the ``recorded`` last tokens.
    """
    rows = make_rows(decoder, lengths)
    cache = decoder.make_cache(len(rows))
    recorded = max(removed for _, removed in rounds) if recorded is None else recorded
    cache.record_past(recorded)
    with torch.no_grad():
        read(decoder, rows, [lengths], cache)
        for seed, (n_read, n_removed) in enumerate(rounds):
            new = make_rows(decoder, [n_read] * len(rows), seed=10 + seed)
            features = read(decoder, new, [[n_read] * len(rows)], cache)
            for i, row in enumerate(rows):
                whole = decoder(torch.cat((row, new[i]))[None])[0]
                assert_same(features[i], whole[len(row) :], EXACT, f"row {i} after round {seed} of {rounds}")
                rows[i] = torch.cat((row, new[i]))[: len(row) + n_read - n_removed]
            try:
                cache.remove_last(n_removed)
            except FoveateError:
                assert n_removed > recorded, f"{n_removed} tokens not taken back, with {recorded} recorded"
                return
            assert np.array_equal(np.broadcast_to(cache.lengths, len(rows)), [len(row) for row in rows])


def check_copy(decoder: Decoder, lengths: Sequence[int], after: Schedule) -> None:
    """A deep copy and its original go on independently of one another."""
    first, second = (make_rows(decoder, np.sum(after, axis=0).tolist(), seed=seed) for seed in (2, 3))
    old = make_rows(decoder, lengths)
    cache = decoder.make_cache(len(lengths))
    with torch.no_grad():
        read(decoder, old, [lengths], cache)
        twin = copy.deepcopy(cache)
        for new, held in ((first, cache), (second, twin)):
            features = read(decoder, new, after, held)
            for i, row in enumerate(old):
                whole = decoder(torch.cat((row, new[i]))[None])[0]
                assert_same(features[i], whole[len(row) :], EXACT, f"row {i}")


def check_rings(decoder: Decoder, schedule: Schedule) -> None:
    """What needs only recent items never has room for more of them: a window, a group, the unit last shown."""
    cache = decoder.make_cache(len(schedule[0]))
    rows = make_rows(decoder, np.sum(schedule, axis=0).tolist())
    done = np.zeros(len(rows), dtype=np.int64)
    with torch.no_grad():
        for counts in schedule:
            read(decoder, [row[start:] for row, start in zip(rows, done, strict=True)], [counts], cache)
            done += counts
            for move, buffers in zip(decoder.spec.steps, cache.steps, strict=True):
                for buffer, room in zip(buffers, rings(move), strict=False):
                    assert buffer.capacity <= room, f"{move}: {buffer.capacity} slots for {room} items"


def rings(move: Step) -> list[int]:
    """Items that the first buffers of a step may hold at most."""
    if isinstance(move, Pool):
        return [move.factor]
    if isinstance(move, Expand):
        return [1]
    return [move.attention.pinned + move.attention.window] if isinstance(move.attention, Window) else []
