"""A run's data may lie elsewhere when it is resumed, so long as it says the same."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from foveate.cli import main
from foveate.errors import FoveateError
from foveate.train.run import resume, train
from foveate.train.settings import read_settings_file
from train.comparing import Killed, assert_same_run


def kill(record) -> None:
    if record["step"] == 8:
        raise Killed


@pytest.fixture
def moved(settings, tmp_path, text_file) -> tuple[Path, Path, Path]:
    """A run that was cut off, and where the text and the validation text of it have gone."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    shutil.copy(text_file, here / "text.txt")
    (here / "valid.txt").write_text("the moon was far away " * 5)
    named = {"data": (str(here / "text.txt"),), "valid_data": (str(here / "valid.txt"),)}
    with pytest.raises(Killed):
        train(replace(settings, **named), on_record=kill)
    here.rename(there)
    return Path(settings.out), there / "text.txt", there / "valid.txt"


def test_a_run_goes_on_where_its_data_has_gone(moved, settings, tmp_path, capsys) -> None:
    run, text, valid = moved
    assert main(["train", "--resume", str(run)]) == 2
    assert f"if it has moved: foveate train --resume {run} --data NEW/PLACE" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--data", str(text)]) == 2
    assert f"--resume {run} --valid-data NEW/PLACE" in capsys.readouterr().err
    gone_on = resume(run, {"data": (str(text),), "valid_data": (str(valid),)})
    named = {"data": (str(text),), "valid_data": (str(valid),), "out": str(tmp_path / "straight")}
    assert_same_run(gone_on, train(replace(settings, **named)))
    assert read_settings_file(run / "foveate.yaml")["data"] == [str(text)]
    assert resume(run).finished


@pytest.mark.parametrize(("number", "what"), [(1, "data"), (2, "validation data")])
def test_but_not_on_other_data(moved, number, what) -> None:
    run, text, valid = moved
    moved[number].write_text("Another text. " * 400)
    with pytest.raises(FoveateError, match=rf"the {what} of {run} is not what it was when the run began"):
        resume(run, {"data": (str(text),), "valid_data": (str(valid),)})
