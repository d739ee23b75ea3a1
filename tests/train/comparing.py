"""Ending a run as a crash would, and telling whether two runs are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from foveate.train.metrics import read_metrics
from foveate.train.run import RunResult
from foveate.train.settings import TrainSettings

CLOCK = ("elapsed", "tokens_per_s", "memory_bytes")


class Killed(BaseException):
    """As abrupt as a test can be within its own process."""


def weights(path) -> dict[str, torch.Tensor]:
    return load_file(Path(path) / "model.safetensors")


def log(run) -> list[dict]:
    return [{name: value for name, value in record.items() if name not in CLOCK} for record in read_metrics(Path(run))]


def assert_same_run(one: RunResult, other: RunResult) -> None:
    mine, others = weights(one.path), weights(other.path)
    assert mine.keys() == others.keys()
    assert all(torch.equal(mine[name], others[name]) for name in mine)
    assert log(one.path) == log(other.path)


def elsewhere(settings: TrainSettings, name: str = "other") -> TrainSettings:
    return replace(settings, out=str(Path(settings.out).parent / name))


def kill_at(step: int, when: str):
    """A callback that ends the process, as it were, when the record of that kind and step is written."""

    def on_record(record) -> None:
        if (record["kind"], record["step"]) == (when, step):
            raise Killed

    return on_record
