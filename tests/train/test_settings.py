from __future__ import annotations

import argparse
import shlex
from dataclasses import fields, replace

import pytest

from foveate.cli import train as train_cli
from foveate.errors import FoveateError
from foveate.train.settings import TrainSettings, default_lr, read_settings_file


def test_values_are_read_alike_from_flags_yaml_and_code() -> None:
    given = TrainSettings(
        tokens="1.5G", context="2k", lr="3e-4", data="a.txt", walk="hourglass:12", levels=["4:width=8"]
    )
    assert given == TrainSettings(
        tokens=1_500_000_000, context=2048, lr=3e-4, data=["a.txt"], walk="2@1 8@4 2@1", levels={"4": {"width": 8}}
    )


def test_yaml_gives_the_same_settings_back(tmp_path) -> None:
    settings = TrainSettings(levels={"4": {"width": 512}}, data=("a", "b")).resolve(parameters=10**6)
    (tmp_path / "s.yaml").write_text(settings.to_yaml())
    assert TrainSettings(**read_settings_file(tmp_path / "s.yaml")) == settings


def test_resolving_leaves_nothing_open_but_shape() -> None:
    settings = TrainSettings(tokens="1M").resolve(parameters=3_000_000)
    still_open = {option.name for option in fields(settings) if getattr(settings, option.name) is None}
    unasked = {"from_", "lora", "teacher", "distill", "temperature", "teacher_top", "sample_every"}
    assert still_open == {"heads", "kv_heads", "ff", "levels"} | unasked
    assert settings.lr == 4e-3
    assert (settings.steps, settings.save_every) == (245, 25)


def test_larger_models_learn_more_slowly() -> None:
    rates = [default_lr(parameters) for parameters in (0, 10**5, 10**7, 10**8, 10**9)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 6e-3


def test_data_paths_no_longer_depend_on_the_working_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    settings = TrainSettings(data=["a.txt", "books", "hf:name", "*.jsonl"]).resolve(parameters=1)
    assert settings.data == (str(tmp_path / "a.txt"), "books", "hf:name", str(tmp_path / "*.jsonl"))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"context": 1}, "--context: 1 leaves no token to predict"),
        ({"context": 0}, "--context: '0' must be a whole number from 1"),
        ({"tokens": "many"}, "--tokens: 'many' is not a number"),
        ({"batch": 10, "accumulate": 3}, "--accumulate: 3 does not divide --batch 10"),
        ({"lr": "fast"}, "--lr: 'fast' is not a number from 0 to 1"),
        ({"lr": float("nan")}, "--lr: nan is not a number"),
        ({"dtype": "fp16"}, "--dtype: 'fp16' is unknown; choose one of auto, fp32, bf16"),
        ({"seed": -1}, "--seed: -1 is not a whole number"),
        ({"keep": True}, "--keep: 'True' is not a number"),
        ({"tensorboard": "yes"}, "--tensorboard: 'yes' is neither true nor false"),
        ({"data": []}, "--data: nothing is named"),
        ({"data": 3}, "--data: 3 is not a list"),
        ({"out": ""}, "--out: '' is not a text"),
        ({"walk": "3@0"}, "walk: stride 0"),
        ({"walk": ""}, "walk is empty"),
        ({"walk": "2@1 4@4 2@1", "model": "llama"}, "--model llama is plain, walk '2@1 4@4 2@1' is not"),
        ({"hidden": 30, "heads": 4}, "level 1: width 30 over 4 heads"),
        ({"levels": {"8": {"width": 64}}}, "levels names stride '8', which the walk does not have"),
    ],
)
def test_a_bad_value_is_named_with_its_flag(given, line) -> None:
    with pytest.raises(FoveateError) as error:
        TrainSettings(**given)
    assert str(error.value).startswith(line)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("hiden: 3", "there is no setting 'hiden'; did you mean hidden?"),
        ("- a", "is not a mapping"),
        ("a: [", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
    ],
)
def test_a_bad_settings_file_is_named(tmp_path, content, line) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FoveateError, match=r"s\.yaml") as error:
        read_settings_file(path)
    assert line in str(error.value)


def test_a_missing_settings_file_is_named(tmp_path) -> None:
    with pytest.raises(FoveateError, match="No such file"):
        read_settings_file(tmp_path / "none.yaml")


def test_resuming_may_change_what_does_not_make_it_another_run() -> None:
    run = TrainSettings(tokens="1M").resolve(parameters=1)
    changed = run.resumed_with({"tokens": "2M", "keep": 5, "lr": None, "dtype": "auto", "hidden": "256"})
    assert changed == replace(run, tokens=2_000_000, keep=5)
    with pytest.raises(FoveateError, match="--hidden: the run was started with 256, not 512"):
        run.resumed_with({"hidden": 512})


OTHERWISE = TrainSettings(
    walk="1@1 2@4 1@1",
    levels={"4": {"width": 512, "heads": 8}},
    data=("some text.txt", "-more.txt", "hf:owner/name"),
    valid_data=("held out.txt",),
    lr=0.0015,
    gradient_checkpointing=True,
    keep_best=False,
    tensorboard=True,
    out="runs/it's here",
)


def read_command(command: str) -> TrainSettings:
    words = shlex.split(command)
    assert words[:2] == ["foveate", "train"]
    parser = argparse.ArgumentParser()
    train_cli.add_arguments(parser)
    names = {option.name for option in fields(TrainSettings)}
    given = {name: value for name, value in vars(parser.parse_args(words[2:])).items() if name in names}
    return TrainSettings(**{name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize(
    "settings",
    [TrainSettings(), OTHERWISE, TrainSettings(walk="12@1", model="llama", hidden=384, seed=7, schedule="linear")],
)
def test_the_command_of_a_run_means_its_settings(settings) -> None:
    assert read_command(settings.command()) == replace(settings, keep_best=True, tensorboard=False)


def test_the_command_told_to_others_has_no_folders() -> None:
    settings = replace(OTHERWISE, data=("/home/me/some text.txt", "hf:owner/name"), tokenizer="/home/me/tokenizer")
    command = settings.command(public=True)
    assert "/home" not in command
    told = read_command(command)
    assert (told.data, told.tokenizer) == (("some text.txt", "hf:owner/name"), "tokenizer")
    assert told.out == TrainSettings.out
