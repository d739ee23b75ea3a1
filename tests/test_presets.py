from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.errors import FoveateError
from foveate.presets import PRESETS, preset, resolve_walk
from foveate.spec import parse_walk

HIERARCHIES = ["top_down", "bottom_up", "hourglass"]


@pytest.mark.parametrize(
    ("text", "walk"),
    [
        ("vanilla", "12@1"),
        ("top_down", "0@1 11@64 6@16 6@4 7@1"),
        ("bottom_up", "7@1 6@4 6@16 11@64 0@1"),
        ("hourglass", "3@1 3@4 3@16 12@64 3@16 3@4 3@1"),
        ("retina", "12@1:fovea"),
        ("top-down:30@1/4/16", "0@1 14@16 8@4 8@1"),
        ("bottom-up:30@1/4/16", "8@1 8@4 14@16 0@1"),
        ("hourglass:12", "2@1 8@4 2@1"),
        ("hourglass:15", "2@1 2@4 7@16 2@4 2@1"),
        ("Hourglass:24@1/4/16", "3@1 3@4 12@16 3@4 3@1"),
        ("hourglass:10@1/8", "2@1 6@8 2@1"),
        ("deep", "1@1 4@4 19@16 4@4 2@1"),
        ("deep:12", "1@1 2@4 5@16 2@4 2@1"),
        ("deep:6", "1@1 1@4 1@16 1@4 2@1"),
        ("deep:8@1/4", "1@1 5@4 2@1"),
        ("deep:40@1/4/16/64", "1@1 4@4 4@16 21@64 4@16 4@4 2@1"),
        ("retina:6@1/4/16", "6@1:fovea,scales=4/16"),
        (" 2@1   8@4 2@1 ", "2@1 8@4 2@1"),
    ],
)
def test_resolve_walk(text, walk) -> None:
    assert resolve_walk(text) == walk


@pytest.mark.parametrize("name", HIERARCHIES)
@given(layers=st.integers(1, 400), coarse=st.lists(st.sampled_from([2, 3, 4]), min_size=1, max_size=5))
def test_layers_and_levels_are_those_asked_for(name, layers, coarse) -> None:
    strides = [1]
    for factor in coarse:
        strides.append(strides[-1] * factor)
    least = len(coarse) * (2 if name == "hourglass" else 1) + 1
    if layers < least:
        with pytest.raises(FoveateError, match=f"needs at least {least} layers, got {layers}"):
            preset(name, layers, strides)
        return
    runs = parse_walk(preset(name, layers, strides))
    on_level = {stride: sum(run.layers for run in runs if run.stride == stride) for stride in strides}
    assert sum(on_level.values()) == layers
    assert min(on_level.values()) >= 1
    counts = list(on_level.values())
    assert counts[:-1] == sorted(counts[:-1], reverse=True), "no finer level has fewer layers than a coarser one"
    if name == "hourglass":
        assert list(runs) == list(reversed(runs))


@pytest.mark.parametrize("name", HIERARCHIES)
def test_without_strides_a_level_is_added_only_when_the_finer_ones_have_four_layers(name) -> None:
    for layers in range(15, 60):
        runs = parse_walk(preset(name, layers))
        strides = {run.stride for run in runs}
        assert strides == ({1, 4, 16} if layers < 19 else {1, 4, 16, 64})
        assert sum(run.layers for run in runs if run.stride == 1) >= 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", ["'x' is neither a preset", *PRESETS, "2@1 8@4 2@1"]),
        ("hourglas:12", ["'hourglas:12' is neither a preset", "hourglass"]),
        ("hourglass:2", ["at least 3 layers", "got 2"]),
        ("hourglass:4@1/4/16", ["over strides 1/4/16 needs at least 5 layers, got 4"]),
        ("hourglass:12@4/1", ["rising from 1"]),
        ("top_down:12@1/4/6", ["stride 6 is not a multiple of stride 4"]),
        ("deep@4/16", ["rising from 1"]),
        ("deep:5", ["over strides 1/4/16 needs at least 6 layers, got 5"]),
        ("deep@1", ["over strides 1 has no coarser scale"]),
        ("vanilla@1/4", ["tokens alone"]),
        ("vanilla:0", ["0 layers"]),
        ("retina@1", ["scales is empty"]),
        ("", ["walk is empty"]),
        ("3@0", ["stride 0"]),
    ],
)
def test_mistakes_say_what_to_write(text, words) -> None:
    with pytest.raises(FoveateError) as error:
        resolve_walk(text)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_unknown_name() -> None:
    with pytest.raises(FoveateError, match="no preset 'plain'; choose one of vanilla, top_down"):
        preset("plain")
