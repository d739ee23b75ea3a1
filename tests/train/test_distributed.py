"""The same run on one process and on several: losses, checkpoints, and what happens when one of them ends."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from foveate.errors import FoveateError
from foveate.train.distributed import World, joined
from foveate.train.metrics import read_metrics
from foveate.train.order import ShuffledEpochs
from foveate.train.run import RunResult, resume, train
from foveate.train.settings import TrainSettings, flag_name
from foveate.train.shares import SharedBatches, check_shares, share_windows
from train.processes import Processes, command, shard_a_model

TOLERANCE = 1e-5


def words(settings: TrainSettings) -> list[str]:
    """The command line of a run."""
    given = ["train"]
    for option in fields(TrainSettings):
        value = getattr(settings, option.name)
        if value == option.default:
            continue
        name = flag_name(option.name)
        if isinstance(value, bool):
            given.append(name if value else name.replace("--", "--no-", 1))
        else:
            given += [name, *map(str, value)] if isinstance(value, tuple) else [name, str(value)]
    return given


def run_on(size: int, settings: TrainSettings) -> Path:
    """Train on so many processes; all must finish, and rank 0 alone may speak."""
    out = Path(settings.out)
    processes = Processes(size, out.with_name(f"{out.name}-said"), command, words(settings))
    codes = processes.wait()
    said = processes.said()
    assert codes == [0] * size, said
    assert said[1:] == [[]] * (size - 1)
    return out


def differences(one: Path, other: Path) -> dict[str, float]:
    """The largest difference of each number of the two logs, which must have the same lines."""
    mine, others = read_metrics(one), read_metrics(other)
    assert [(record["kind"], record["step"]) for record in mine] == [(r["kind"], r["step"]) for r in others]
    return {
        name: max(abs(a[name] - b[name]) for a, b in zip(mine, others, strict=True) if name in a)
        for name in ("loss", "bpb", "grad_norm", "lr", "tokens", "valid_tokens")
    }


def assert_same(one: Path, other: Path) -> None:
    found = differences(one, other)
    print(other.name, found)
    assert all(difference <= TOLERANCE for difference in found.values()), found
    mine, others = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert mine.keys() == others.keys()
    for name, weight in mine.items():
        torch.testing.assert_close(others[name], weight, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def one(undisturbed: RunResult) -> Path:
    return undisturbed.path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "changes"),
    [
        (2, {"parallel": "ddp"}),
        (2, {"parallel": "fsdp"}),
        (3, {"parallel": "fsdp", "gradient_checkpointing": True}),  # a batch of four in three uneven shares
        (2, {"parallel": "ddp", "gradient_checkpointing": True, "accumulate": 2}),
    ],
)
def test_losses_are_those_of_one_process(size: int, changes: dict[str, Any], settings, one) -> None:
    assert_same(one, run_on(size, replace(settings, **changes)))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_lengths_that_fit_no_level_and_parts_that_are_never_reached(parallel, settings) -> None:
    """With 13 tokens nothing completes at stride 16, nor does a fovea's coarse part see any."""
    settings = replace(settings, walk="1@1:fovea 1@4 1@16 1@1", context=13, tokens=12 * 4 * 13, weight_decay=0.5)
    alone = train(replace(settings, out=f"{settings.out}-alone"))
    assert_same(alone.path, run_on(2, replace(settings, parallel=parallel)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"parallel": "ddp", "stages": ("640:moves",), "freeze": ("embedding",)},
        {"parallel": "fsdp", "stages": ("640:moves",), "freeze": ("embedding",)},
        {"parallel": "ddp", "optimizer": "muon", "accumulate": 2},
    ],
    ids=["stages-ddp", "stages-fsdp", "muon"],
)
def test_parts_and_optimizers_are_those_of_one_process(changes, settings) -> None:
    alone = train(replace(settings, **changes, out=f"{settings.out}-alone"))
    together = run_on(2, replace(settings, **changes))
    if "optimizer" in changes:  # Muon multiplies in bf16, which makes more of rounding
        assert max(differences(alone.path, together).values()) < 2e-3
    else:
        assert_same(alone.path, together)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"parallel": "fsdp", "teacher_top": 8},
        {"parallel": "ddp", "accumulate": 2},
        {"parallel": "ddp", "lora": 2, "teacher": None},
    ],
    ids=["answers-fsdp", "teacher-ddp", "lora-ddp"],
)
def test_teachers_and_adapters_are_those_of_one_process(changes, settings, one) -> None:
    if "lora" in changes:
        pytest.importorskip("peft")
    shape = {"walk": TrainSettings.walk, "hidden": TrainSettings.hidden, "heads": None}
    settings = replace(settings, **shape, **{"from_": str(one), "tokenizer": None, "teacher": str(one), **changes})
    alone = train(replace(settings, parallel="ddp", out=f"{settings.out}-alone"))
    assert_same(alone.path, run_on(2, settings))


def start_and_signal(settings: TrainSettings, number: int) -> Processes:
    """Two processes, of which the second gets a signal after the first checkpoint."""
    out = Path(settings.out)
    processes = Processes(2, out.with_name("said"), command, words(settings))
    deadline = time.monotonic() + 60
    while not (out / "checkpoint-5").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(processes.members[1].pid, number)  # type: ignore[arg-type]
    return processes


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_one_of_two_is_killed_and_one_goes_on(parallel, settings, one) -> None:
    processes = start_and_signal(replace(settings, parallel=parallel), signal.SIGKILL)
    codes, said = processes.wait(), processes.said()
    assert codes == [2, -signal.SIGKILL], said
    last = f"foveate: a process of the run has ended; go on with foveate train --resume {settings.out}"
    assert [line for line in said[0] if line.startswith("foveate: ")] == [last]
    resume(settings.out)
    assert_same(one, Path(settings.out))


@pytest.mark.slow
def test_one_of_two_is_told_to_stop_and_one_goes_on(settings, one) -> None:
    processes = start_and_signal(replace(settings, parallel="fsdp"), signal.SIGTERM)
    codes, said = processes.wait(), processes.said()
    assert codes == [143, 143], said
    assert said[1] == []
    assert f"resume with: foveate train --resume {settings.out}" in said[0][-1]
    resume(settings.out)
    assert_same(one, Path(settings.out))


@pytest.mark.slow
def test_two_go_on_where_one_was_stopped(settings, one) -> None:
    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, on_record=stop)
    run = ["train", "--resume", settings.out, "--parallel", "fsdp", "--accumulate", "2"]
    processes = Processes(2, Path(settings.out).with_name("said"), command, run)
    assert processes.wait() == [0, 0], processes.said()
    assert_same(one, Path(settings.out))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"batch": 1}, "--batch 1 is too small for 2 processes"),
        ({"data": ("nowhere.txt",)}, "no such file"),
        ({"hidden": 33}, "33"),
    ],
)
def test_a_mistake_is_one_line(changes, line, settings, tmp_path) -> None:
    given = words(settings)
    for name, value in changes.items():
        value = value[0] if isinstance(value, tuple) else value
        at = given.index(flag_name(name)) if flag_name(name) in given else len(given)
        given[at : at + 2] = [flag_name(name), str(value)]
    processes = Processes(2, tmp_path / "said", command, given)
    assert processes.wait() == [2, 2]
    [said] = [line for lines in processes.said() for line in lines]
    assert said.startswith("foveate: ")
    assert line in said


@pytest.mark.slow
@pytest.mark.parametrize(("walk", "context"), [("1@1 2@4 1@1", 37), ("2@1:fovea", 40), ("1@1 1@16 1@1", 9)])
def test_sharding_keeps_a_part_of_every_weight(walk, context, tmp_path) -> None:
    processes = Processes(2, tmp_path / "said", shard_a_model, walk, context, tmp_path / "found.json")
    assert processes.wait() == [0, 0], processes.said()
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["sharded"] == found["parameters"]
    assert 0.4 < found["local numbers"] / found["numbers"] < 0.6
    assert found["local numbers of a whole tensor"] == found["local numbers"]
    assert found["unreached"] == found["unreached when sharded"]
    assert found["loss"] < 1e-6
    assert found["gradient"] < 1e-6


def world(rank: int, size: int) -> World:
    found = World(rank=0, size=1)
    found.rank, found.size = rank, size
    return found


@pytest.mark.parametrize(("size", "parts", "batch"), [(1, 1, 4), (2, 1, 4), (3, 2, 7), (4, 3, 12)])
def test_shares_are_the_batch_without_overlap_or_loss(size, parts, batch) -> None:
    order = ShuffledEpochs(size=23, draws=5 * batch, seed=3)
    shares = [list(SharedBatches(order, batch=batch, parts=parts, world=world(rank, size))) for rank in range(size)]
    assert {len(share) for share in shares} == {5 * parts}
    assert len(SharedBatches(order, batch=batch, parts=parts, world=world(0, size))) == 5 * parts
    sizes = [len(rows) for share in shares for rows in share]
    assert max(sizes) - min(sizes) <= 1
    drawn = list(order)
    for step in range(5):
        together = [row for part in range(parts) for rank in range(size) for row in shares[rank][step * parts + part]]
        assert together == drawn[step * batch : (step + 1) * batch]


def test_windows_are_shared_in_equal_numbers() -> None:
    import numpy as np

    windows = [(np.full((2, 3), number), np.full((2, 3), number)) for number in range(5)]
    shares = [list(share_windows(windows, world(rank, 2), -100)) for rank in range(2)]
    assert [[inputs[0, 0] for inputs, _, _ in share] for share in shares] == [[0, 2, 4], [1, 3, 4]]
    assert [[int((targets != -100).sum()) for _, targets, _ in share] for share in shares] == [[6, 6, 6], [6, 6, 0]]
    assert [tokens for _, _, tokens in shares[0]] == [12, 12, 6]


def test_a_batch_too_small_is_refused() -> None:
    check_shares(batch=4, parts=2, size=2)
    with pytest.raises(FoveateError, match=r"--batch 3 is too small for 2 processes .* give at least 4"):
        check_shares(batch=3, parts=2, size=2)


def test_processes_that_do_not_meet_are_one_line(monkeypatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(FoveateError, match=r"process 1 of 2 has not found the others at nowhere.invalid"), joined(""):
        pass
