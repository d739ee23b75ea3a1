from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.errors import FoveateError
from foveate.spec import Attention, Expand, Fovea, Full, HierarchySpec, Level, Pool, Run, Window, parse_walk


@st.composite
def attentions(draw) -> Attention:
    kind = draw(st.sampled_from(["full", "window", "fovea"]))
    if kind == "full":
        return Full()
    if kind == "window":
        return Window(window=draw(st.integers(1, 5000)))
    scales = [draw(st.sampled_from([2, 4, 8]))]
    for factor in draw(st.lists(st.sampled_from([2, 4]), max_size=3)):
        scales.append(scales[-1] * factor)
    return Fovea(
        block=scales[0] * draw(st.integers(1, 40)),
        groups=draw(st.integers(4, 64)),
        scales=tuple(scales),
        tail=draw(st.sampled_from(["keep", "log"])),
    )


@st.composite
def walks(draw) -> tuple[Run, ...]:
    strides = [1]
    for factor in draw(st.lists(st.integers(2, 8), max_size=4)):
        strides.append(strides[-1] * factor)
    inner = draw(st.lists(st.sampled_from(strides), max_size=6))
    runs = [Run(stride=s, layers=draw(st.integers(0, 40)), attention=draw(attentions())) for s in (1, *inner)]
    return (*runs, Run(stride=1, layers=draw(st.integers(1, 40)), attention=draw(attentions())))


@st.composite
def specs(draw) -> HierarchySpec:
    runs = draw(walks())
    levels = []
    for stride in sorted({run.stride for run in runs}):
        kv_heads, group, half = draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 32)))
        heads = kv_heads * group
        levels.append(
            Level(
                stride=stride,
                width=heads * 2 * half,
                heads=heads,
                kv_heads=kv_heads,
                feed_forward=draw(st.integers(1, 4096)),
            )
        )
    return HierarchySpec(
        runs=runs,
        levels=tuple(levels),
        pooling=draw(st.sampled_from(["mean", "linear", "attention"])),
        expanding=draw(st.sampled_from(["repeat", "linear", "attention"])),
    )


@given(walks())
def test_a_walk_survives_its_text(runs) -> None:
    assert parse_walk(" ".join(map(str, runs))) == runs


@given(specs())
def test_a_spec_survives_json(spec) -> None:
    again = HierarchySpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.steps == spec.steps


@given(specs())
def test_a_spec_survives_its_text_and_shapes(spec) -> None:
    shapes = {
        level.stride: {
            "width": level.width,
            "heads": level.heads,
            "kv_heads": level.kv_heads,
            "feed_forward": level.feed_forward,
        }
        for level in spec.levels
    }
    assert HierarchySpec.parse(str(spec), levels=shapes, pooling=spec.pooling, expanding=spec.expanding) == spec


@given(specs())
def test_steps_move_one_level_at_a_time_and_end_on_the_tokens(spec) -> None:
    here = 1
    for step in spec.steps:
        if isinstance(step, Run):
            assert step.stride == here
        else:
            assert step.source == here
            assert abs(spec.strides.index(step.stride) - spec.strides.index(here)) == 1
            assert step.factor * min(step.stride, step.source) == max(step.stride, step.source)
            here = step.stride
    assert here == 1
    assert tuple(step for step in spec.steps if isinstance(step, Run)) == spec.runs


def test_a_move_passes_through_every_level_between() -> None:
    steps = HierarchySpec.parse("0@1 14@16 8@4 8@1").steps
    assert steps == (
        Run(stride=1, layers=0),
        Pool(source=1, stride=4),
        Pool(source=4, stride=16),
        Run(stride=16, layers=14),
        Expand(source=16, stride=4),
        Run(stride=4, layers=8),
        Expand(source=4, stride=1),
        Run(stride=1, layers=8),
    )


def test_a_level_of_its_own_width_takes_its_own_defaults() -> None:
    spec = HierarchySpec.parse("1@1 1@4 1@1", width=256, heads=4, kv_heads=2, levels={"4": {"width": 384, "heads": 6}})
    assert spec.level(1) == Level(stride=1, width=256, heads=4, kv_heads=2, feed_forward=704)
    assert spec.level(4) == Level(stride=4, width=384, heads=6, kv_heads=6, feed_forward=1024)


def test_fovea_text() -> None:
    attention = Attention.parse("fovea32,groups=8,scales=4/16,tail=keep")
    assert attention == Fovea(block=32, groups=8, scales=(4, 16), tail="keep")
    assert str(Attention.parse("fovea64,groups=16,scales=4/16/64,tail=log")) == "fovea"


@pytest.mark.parametrize(
    ("walk", "message"),
    [
        ("", "walk is empty"),
        ("   ", "walk is empty"),
        (None, "walk is empty"),
        ("x", "cannot read 'x'"),
        ("2@1, 8@4", "cannot read '2@1,'"),
        ("2@1 -8@4 2@1", "cannot read '-8@4'"),
        ("2@1 8@ 2@1", "cannot read '8@'"),
        ("2@1:", "cannot read '2@1:'"),
        ("٢@1", "cannot read '٢@1'"),
        ("3@0", "stride 0 in '3@0' must be from 1"),
        ("1@1 3@131072 1@1", "stride 131072 in '3@131072' must be from 1 to 65536"),
        ("2@1 2@6 2@4", "stride 6 is not a multiple of stride 4"),
        ("2@1 2@6 2@4 1@1", "stride 6 is not a multiple of stride 4"),
        ("2@4", "must start and end at stride 1"),
        ("2@1 8@4", "add '0@1' at the end"),
        ("0@1", "has 0 layers"),
        ("0@1 0@4 0@1", "has 0 layers"),
        ("1001@1", "layers is 1001"),
        ("501@1 500@1", "has 1001 layers"),
        ("999999999@1", "layers is 999999999; it must be a whole number from 0 to 1000"),
        ("1@1 1@1000000000 1@1", "stride 1000000000 in '1@1000000000' must be from 1 to 65536"),
        ("1@1 " + "0@64 0@1 " * 1000, "has 2001 runs and 2000 moves, together over 2000"),
        ("1@1 " * 30_000, "walk has 120,000 characters, over 100,000"),
        (3, "walk is 3, not text"),
        ("2@1:" + "x" * 200, "attention 'xxx"),
        ("2@1:windw8", "attention 'windw8' is unknown; write full, window128, sink128, fovea"),
        ("2@1:window", "attention 'window' is unknown"),
        ("2@1:window0", "window is 0; it must be a whole number from 1"),
        ("2@1:fovea30", "block 30 must be a multiple of the finest scale 4"),
        ("2@1:fovea,group=3", "fovea option 'group=3' is unknown; write groups=16"),
        ("2@1:fovea,groups=0", "groups is 0"),
        ("2@1:fovea,scales=4/6", "scale 6 must be a multiple of the scale 4"),
        ("2@1:fovea,scales=4/4", "scale"),
        ("2@1:fovea,scales=1/4", "scale is 1; it must be a whole number from 2"),
        ("2@1:fovea,groups=2", "groups is 2; it must be at least 4"),
        ("2@1:fovea,groups=7,scales=4/32", "groups is 7; it must be at least 8"),
        ("2@1:fovea,tail=drop", "fovea option 'tail=drop' is unknown"),
    ],
)
def test_walks_that_are_wrong(walk, message) -> None:
    with pytest.raises(FoveateError) as error:
        parse_walk(walk)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 320


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"width": 2.0}, "width is 2.0"),
        ({"width": True}, "width is True"),
        ({"width": 10**12}, "width is 1000000000000; it must be a whole number from 1 to 1048576"),
        ({"width": -(10**5000)}, "width is a number of 16,610 bits"),
        ({"width": float("nan")}, "width is nan"),
        ({"levels": {10**5000: {"width": 64}}}, "levels names stride a number of 16,610 bits"),
        ({"levels": {4: {"width": [[]] * 1000}}}, "width is [[], "),
        ({"heads": 3}, "width 256 over 3 heads must give an even whole number per head"),
        ({"width": 12, "heads": 4}, "width 12 over 4 heads must give an even whole number per head"),
        ({"heads": 4, "kv_heads": 3}, "heads 4 must be a multiple of kv_heads 3"),
        ({"kv_heads": 8}, "kv_heads is 8; it must be a whole number from 1 to 4"),
        ({"kv_heads": 0}, "kv_heads is 0"),
        ({"feed_forward": -1}, "feed_forward is -1"),
        ({"pooling": "max"}, "pooling is 'max'; choose one of mean, linear, attention"),
        ({"expanding": "copy"}, "expanding is 'copy'; choose one of repeat, linear, attention"),
        ({"levels": {"8": {"width": 64}}}, "levels names stride '8', which the walk does not have"),
        ({"levels": {"four": {"width": 64}}}, "levels names stride 'four'"),
        ({"levels": {"4": {"wide": 64}}}, "it takes feed_forward, head_dim, heads, kv_heads, width"),
        ({"levels": {"4": 64}}, "levels[4] is 64"),
        ({"levels": [4]}, "levels is [4]; write a mapping"),
        ({"levels": {4: {"width": "64"}}}, "width is '64'"),
    ],
)
def test_shapes_that_are_wrong(shape, message) -> None:
    with pytest.raises(FoveateError) as error:
        HierarchySpec.parse("2@1 8@4 2@1", **shape)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"walk": "1@1"},
        {"walk": "1@1", "levels": [{}], "pooling": "mean", "expanding": "repeat"},
        {"walk": "1@1", "levels": 3, "pooling": "mean", "expanding": "repeat"},
        {"walk": "1@1", "levels": [], "pooling": "mean", "expanding": "repeat"},
    ],
)
def test_json_that_is_no_spec(data) -> None:
    with pytest.raises(FoveateError):
        HierarchySpec.from_json(data)


def test_a_move_over_several_levels_counts_as_many(monkeypatch) -> None:
    walk = "1@1 1@16 1@1 1@4 1@1"
    parse_walk(walk)
    monkeypatch.setattr("foveate.spec.walk.MAX_STEPS", 10)
    with pytest.raises(FoveateError, match="has 5 runs and 6 moves, together over 10"):
        parse_walk(walk)


@pytest.mark.parametrize(
    ("walk", "expanding", "any_length"),
    [
        ("1@1:window8 1@4:fovea4,groups=4,scales=2 1@1:window8", "linear", True),
        ("1@1:window8 1@4:window8 1@1:window8", "attention", False),
        ("1@1:window8 1@4 1@1:window8", "linear", False),
        ("0@1 1@4:window8 0@1", "linear", True),
    ],
)
def test_what_reads_any_length_does_no_work_that_grows(walk: str, expanding: str, any_length: bool) -> None:
    spec = HierarchySpec.parse(walk, width=8, heads=2, expanding=expanding)
    assert spec.reads_any_length == any_length


def test_a_level_of_its_own_width_has_the_defaults_of_that_width() -> None:
    levels = {"4": {"width": 48}, "16": {"heads": 4}}
    spec = HierarchySpec.parse("1@1 1@4 1@16 1@1", width=24, heads=2, kv_heads=1, feed_forward=100, levels=levels)
    shapes = [(level.width, level.heads, level.kv_heads, level.feed_forward, level.head_dim) for level in spec.levels]
    assert shapes == [(24, 2, 1, 100, 12), (48, 2, 1, 128, 24), (24, 4, 4, 100, 6)]
