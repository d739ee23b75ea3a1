"""The run directory: who may use it, and how it becomes a complete model at the end."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from foveate.errors import FoveateError
from foveate.files import copy_atomically, is_disk_full, remove_unfinished
from foveate.loading.manifest import MANIFEST, read_manifest, write_manifest
from foveate.train.checkpoint import Checkpoint
from foveate.train.metrics import METRICS_FILE
from foveate.train.settings import SETTINGS_FILE
from foveate.train.start import ADAPTER_FILE
from foveate.train.state import OPTIMIZER_FILE, PROCESS_FILE
from foveate.train.tracking import TRACKERS_FILE

LOCK_FILE = ".lock"
TRAINING_FILES = (OPTIMIZER_FILE, PROCESS_FILE, ADAPTER_FILE, METRICS_FILE, "trainer_state.json")


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold a run directory, which is made where missing, against other training processes.

    Raises:
        FoveateError: another process holds it, or it cannot be written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout:
        raise FoveateError(f"another process is training in {run}; wait for it, or choose another --out") from None
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise FoveateError(f"--out: {run} cannot be used as a folder: {error.strerror}") from None
    try:
        yield
    finally:
        if [path.name for path in run.iterdir()] == [LOCK_FILE]:  # nothing came of it
            shutil.rmtree(run)
        lock.release()


def holds_run(run: Path) -> bool:
    return (run / SETTINGS_FILE).exists()


def make_room(run: Path, *, overwrite: bool) -> None:
    """See that a new run may begin in a folder: it is empty, or holds a run that is to be overwritten.

    Raises:
        FoveateError: it holds a run that is not, or something else.
    """
    content = [path for path in run.iterdir() if path.name != LOCK_FILE]
    if not content:
        return
    if not holds_run(run):
        raise FoveateError(f"--out: {run} is not empty and holds no run ({content[0].name}); choose another")
    if not overwrite:
        raise FoveateError(f"--out: {run} holds a run; go on with it by --resume, replace it by --overwrite")
    manifest = read_manifest(run) or {"files": {}}
    # the settings go last: what is left of an interrupted removal is still known as a run
    for name in [*manifest["files"], MANIFEST, METRICS_FILE, TRACKERS_FILE]:
        if name != SETTINGS_FILE:
            (run / name).unlink(missing_ok=True)
    for folder in [run / ".saving", run / "tensorboard", run / "wandb", *run.glob("*checkpoint-*")]:
        shutil.rmtree(folder, ignore_errors=True)
    remove_unfinished(run)
    (run / SETTINGS_FILE).unlink()


def export(checkpoint: Checkpoint, run: Path) -> None:
    """Make the run directory itself the model of a checkpoint, file by file, the manifest last.

    Raises:
        FoveateError: the disk is full.
    """
    names = [name for name in checkpoint.notes["files"] if not _is_training_state(name)]
    (run / MANIFEST).unlink(missing_ok=True)
    try:
        for name in names:
            copy_atomically(checkpoint.path / name, run / name)
        notes = {name: value for name, value in checkpoint.notes.items() if name != "files"}
        write_manifest(run, notes, [run / name for name in names])
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise FoveateError(
            f"no space left to put the finished model in {run}; {checkpoint.path.name} has it: "
            f"free some space, then foveate train --resume {run}"
        ) from None


def _is_training_state(name: str) -> bool:
    return name in TRAINING_FILES
