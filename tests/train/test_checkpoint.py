from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError

from foveate.errors import FoveateError
from foveate.loading.manifest import MANIFEST
from foveate.train.checkpoint import Checkpoints


def save(checkpoints: Checkpoints, step: int, text: str = "weights") -> None:
    with checkpoints.writing(step) as (folder, notes):
        (folder / "model").write_text(text)
        (folder / "state").write_text("state" * step)
        notes["tokens"] = step * 10


def contents(run) -> set[str]:
    return {path.name for path in run.iterdir()}


def test_the_newest_are_kept_and_found_with_their_notes(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (9, 10, 100):
        save(checkpoints, step)
    assert contents(tmp_path) == {"checkpoint-10", "checkpoint-100"}
    found = checkpoints.newest_whole()
    assert found is not None
    assert (found.step, found.path.name, found.notes["tokens"]) == (100, "checkpoint-100", 1000)


def test_the_best_is_kept_besides_the_newest(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, score in enumerate([2.5, 2.1, 2.3, 2.2, 2.3, 2.4], 1):
        checkpoints.scores[step] = score
        save(checkpoints, step)
    assert contents(tmp_path) == {"checkpoint-2", "checkpoint-5", "checkpoint-6"}
    assert checkpoints.best == 2
    checkpoints.scores[7] = 2.1  # as good and newer
    save(checkpoints, 7)
    assert contents(tmp_path) == {"checkpoint-6", "checkpoint-7"}
    checkpoints.scores[6] = 1.9
    checkpoints.keep, checkpoints.keep_best = 1, False
    checkpoints.prune()
    assert contents(tmp_path) == {"checkpoint-7"}


def test_a_removal_that_is_killed_leaves_no_half_checkpoint(tmp_path, monkeypatch) -> None:
    for step in (1, 2):
        save(Checkpoints(tmp_path, keep=3), step)
    checkpoints = Checkpoints(tmp_path, keep=1)

    def killed(path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", killed)
        checkpoints.prune()
    assert checkpoints.steps() == [2]
    assert checkpoints.clear_unfinished() == ["checkpoint-1"]
    assert contents(tmp_path) == {"checkpoint-2"}


def test_fewer_can_be_kept_later(tmp_path) -> None:
    for step in (1, 2, 3):
        save(Checkpoints(tmp_path, keep=3), step)
    Checkpoints(tmp_path, keep=1).prune()
    assert contents(tmp_path) == {"checkpoint-3"}


def test_an_interrupted_save_leaves_nothing_behind(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    with pytest.raises(KeyboardInterrupt), checkpoints.writing(2) as (folder, _):
        (folder / "model").write_text("half")
        raise KeyboardInterrupt
    assert contents(tmp_path) == {"checkpoint-1"}


def test_what_a_killed_save_has_left_is_no_checkpoint(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    (tmp_path / ".saving" / "checkpoint-3").mkdir(parents=True)
    assert checkpoints.newest_whole() is None
    assert checkpoints.clear_unfinished()
    assert not checkpoints.clear_unfinished()
    assert contents(tmp_path) == set()


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left (os error 28)")],
    ids=["OSError", "SafetensorError"],
)
def test_a_full_disk_is_one_line_and_leaves_the_earlier_checkpoint(tmp_path, error) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    line = r"no space left for the checkpoint of step 2 .*checkpoint-1 is whole"
    with pytest.raises(FoveateError, match=line), checkpoints.writing(2):
        raise error
    assert contents(tmp_path) == {"checkpoint-1"}


def truncate(path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("damage", [truncate, flip, lambda path: path.unlink()], ids=["truncated", "flipped", "gone"])
@pytest.mark.parametrize("name", ["model", "state", MANIFEST])
def test_a_damaged_checkpoint_is_passed_over_by_name_and_set_aside(tmp_path, damage, name) -> None:
    checkpoints = Checkpoints(tmp_path, keep=5)
    save(checkpoints, 1)
    save(checkpoints, 2)
    damage(tmp_path / "checkpoint-2" / name)
    notes: list[str] = []
    found = checkpoints.newest_whole(notes.append)
    assert found is not None
    assert found.step == 1
    passed_over, taken = notes
    assert passed_over.startswith(f"passed over checkpoint-2: {name} ")
    assert taken == f"resuming from {found.path}: the newest whole one, its 2 files are as its manifest lists them"
    assert contents(tmp_path) == {"checkpoint-1", "damaged-checkpoint-2"}


def test_if_all_are_damaged_none_is_taken(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    truncate(tmp_path / "checkpoint-1" / "model")
    with pytest.raises(FoveateError, match=r"no checkpoint in .*checkpoint-1: model has 4 bytes instead of 7"):
        checkpoints.newest_whole()


def test_a_step_saved_again_replaces_what_was_there(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1, "old")
    save(checkpoints, 1, "new")
    assert (tmp_path / "checkpoint-1" / "model").read_text() == "new"
    assert contents(tmp_path) == {"checkpoint-1"}
