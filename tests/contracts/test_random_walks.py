"""The contract on random walks, lengths, splits and paddings."""

from itertools import accumulate
from operator import mul

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.checks import (
    Schedule,
    check_append_rows,
    check_calls,
    check_causal,
    check_clock,
    check_copy,
    check_gradients,
    check_oracle,
    check_packed,
    check_remove_last,
    check_rings,
    check_take_rows,
    make_decoder,
)
from foveate.spec import EXPANDINGS, POOLINGS, HierarchySpec

LIMITS = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def foveas() -> st.SearchStrategy[str]:
    return st.builds(
        ":fovea{},groups={},scales={},tail={}".format,
        st.sampled_from([2, 4, 6]),
        st.integers(4, 5),
        st.sampled_from(["2", "2/4", "2/6", "2/8"]),
        st.sampled_from(["keep", "log"]),
    )


@st.composite
def specs(draw: st.DrawFn) -> HierarchySpec:
    """Up to three levels and three runs between the first and the last, on small widths."""
    factors = draw(st.lists(st.integers(2, 5), max_size=2))
    strides = [1, *accumulate(factors, mul)]
    visits = [1, *draw(st.lists(st.sampled_from(strides), min_size=1, max_size=3)), 1]
    attention = st.one_of(
        st.just(""), st.integers(1, 7).map(":window{}".format), st.integers(1, 5).map(":sink{}".format), foveas()
    )
    runs = [(draw(st.integers(0, 2)), stride, draw(attention)) for stride in visits]
    if not any(layers for layers, _, _ in runs):
        runs[1] = (1, *runs[1][1:])
    shapes = st.sampled_from(
        [
            {"width": 4, "heads": 1},
            {"width": 8, "heads": 2, "kv_heads": 1},
            {"width": 12, "heads": 2, "feed_forward": 9},
            {"width": 16, "heads": 4, "kv_heads": 2, "feed_forward": 16},
        ]
    )
    return HierarchySpec.parse(
        " ".join(f"{layers}@{stride}{attention}" for layers, stride, attention in runs),
        width=8,
        heads=2,
        feed_forward=12,
        levels={stride: draw(shapes) for stride in set(visits)},
        pooling=draw(st.sampled_from(POOLINGS)),
        expanding=draw(st.sampled_from(EXPANDINGS)),
    )


def schedules(rows: int, calls: int) -> st.SearchStrategy[Schedule]:
    """Tokens each row reads in each call: the same for all rows, or one's own, often one or none."""
    few = st.one_of(st.integers(0, 2), st.integers(0, 12))
    alike = few.map(lambda n: [max(n, 1)] * rows)
    own = st.lists(few, min_size=rows, max_size=rows)
    return st.one_of(
        st.lists(alike, min_size=1, max_size=calls), st.lists(st.one_of(alike, own), min_size=1, max_size=calls)
    )


@settings(LIMITS, max_examples=200)
@given(spec=specs(), schedule=schedules(3, 5), pads=st.integers(0, 2))
def test_contract(spec: HierarchySpec, schedule: Schedule, pads: int) -> None:
    decoder = make_decoder(spec)
    lengths = np.sum(schedule, axis=0).tolist()
    if any(lengths):
        check_oracle(decoder, [max(lengths)])
        check_causal(decoder, max(lengths))
        check_calls(decoder, [lengths], cached=False, extra_columns=pads)
    check_calls(decoder, schedule, extra_columns=pads)
    check_clock(decoder, schedule)


@st.composite
def packings(draw: st.DrawFn) -> list[list[int]]:
    """Lengths of documents in rows of equal sum."""
    tokens = draw(st.integers(1, 40))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        cuts = sorted(draw(st.sets(st.integers(1, tokens), max_size=5)) | {tokens})
        rows.append(np.diff([0, *cuts]).tolist())
    return rows


def check_documents_and_gradients(spec: HierarchySpec, schedule: Schedule, packing: list[list[int]]) -> None:
    decoder = make_decoder(spec)
    check_gradients(decoder, schedule)
    check_packed(decoder, packing)


@settings(LIMITS, max_examples=40)
@given(spec=specs(), schedule=schedules(3, 6), packing=packings())
def test_documents_and_gradients(spec: HierarchySpec, schedule: Schedule, packing: list[list[int]]) -> None:
    check_documents_and_gradients(spec, schedule, packing)


@settings(LIMITS, max_examples=40)
@given(spec=specs(), data=st.data())
def test_cache(spec: HierarchySpec, data: st.DataObject) -> None:
    decoder = make_decoder(spec)
    before = data.draw(st.lists(st.integers(0, 12), min_size=3, max_size=3), label="lengths")
    index = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=4), label="rows taken")
    rounds = data.draw(
        st.lists(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, min(n, 6)))), min_size=1).map(
            lambda rounds: rounds[:6]
        ),
        label="tokens read and removed",
    )
    check_take_rows(decoder, before, index, data.draw(schedules(len(index), 3), label="calls after"))
    check_remove_last(decoder, before, rounds, recorded=data.draw(st.sampled_from([None, 0]), label="recorded"))
    check_copy(decoder, before, data.draw(schedules(3, 3), label="calls after the copy"))
    check_append_rows(decoder, [before, index], data.draw(schedules(3 + len(index), 3), label="calls after joining"))
    check_rings(decoder, data.draw(schedules(3, 4), label="calls"))


@pytest.mark.slow
@settings(LIMITS, max_examples=150)
@given(spec=specs(), schedule=schedules(4, 10), pads=st.integers(0, 2))
def test_contract_at_length(spec: HierarchySpec, schedule: Schedule, pads: int) -> None:
    decoder = make_decoder(spec, seed=1)
    check_oracle(decoder, np.maximum(np.sum(schedule, axis=0), 1).tolist())
    check_calls(decoder, schedule, extra_columns=pads)
    check_clock(decoder, schedule)
