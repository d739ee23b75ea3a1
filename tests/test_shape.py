from __future__ import annotations

import argparse

import pytest

from foveate.cli.shape import add_shape_arguments
from foveate.errors import FoveateError
from foveate.shape import config_values, read_levels, spec_from_config
from foveate.spec import HierarchySpec


def values(*words: str) -> dict:
    parser = argparse.ArgumentParser()
    add_shape_arguments(parser)
    return config_values(parser.parse_args(words))


def test_defaults_fit_the_width() -> None:
    assert values("--walk", "2@1") == {
        "walk": "2@1",
        "hidden_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": None,
        "intermediate_size": None,
        "levels": None,
        "pooling": "mean",
        "expanding": "repeat",
    }


@pytest.mark.parametrize(("hidden", "heads"), [("512", 8), ("32", 1), ("200", 2), ("66", 1), ("1536", 24), ("198", 3)])
def test_heads_follow_the_width(hidden, heads) -> None:
    assert values("--walk", "2@1", "--hidden", hidden)["num_attention_heads"] == heads


def test_flags_describe_the_spec_they_name() -> None:
    given = values(
        *("--walk", "hourglass:12", "--hidden", "128", "--heads", "4", "--kv-heads", "2", "--ff", "300"),
        *("--levels", "1:width=64,heads=2", "4:kv-heads=1,ff=400", "--pooling", "mean", "--expanding", "attention"),
    )
    assert spec_from_config(given) == HierarchySpec.parse(
        "2@1 8@4 2@1",
        width=128,
        heads=4,
        kv_heads=2,
        feed_forward=300,
        levels={1: {"width": 64, "heads": 2}, 4: {"kv_heads": 1, "feed_forward": 400}},
        pooling="mean",
        expanding="attention",
    )


def test_a_default_walk_can_be_given_by_the_command() -> None:
    parser = argparse.ArgumentParser()
    add_shape_arguments(parser, walk="hourglass:12")
    assert config_values(parser.parse_args([]))["walk"] == "2@1 8@4 2@1"


@pytest.mark.parametrize(
    "given",
    [
        "4:width=512,heads=8 16:ff=3",
        ["4:width=512,heads=8", "16:ff=3"],
        {4: {"width": 512, "heads": 8}, "16": {"ff": 3}},
    ],
)
def test_levels_in_any_spelling(given) -> None:
    assert read_levels(given) == {"4": {"width": 512, "heads": 8}, "16": {"feed_forward": 3}}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("4", "cannot read '4'; write stride:key=value"),
        ("four:width=3", "cannot read 'four:width=3'"),
        ("4:", "cannot read ''"),
        ("4:wide=3", "cannot read 'wide=3'"),
        ("4:width=-3", "cannot read 'width=-3'"),
        ("4:width=8,,heads=1", "cannot read ''"),
    ],
)
def test_levels_that_cannot_be_read(word, message) -> None:
    with pytest.raises(FoveateError) as error:
        read_levels([word])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--walk is missing"),
        (["--walk", "2@1", "--heads", "7"], "width 256 over 7 heads"),
        (["--walk", "2@1", "--levels", "4:width=64"], "levels names stride '4', which the walk does not have"),
    ],
)
def test_values_that_make_no_model(words, message) -> None:
    with pytest.raises(FoveateError) as error:
        values(*words)
    assert message in str(error.value)
