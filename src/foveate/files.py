"""Files and folders that are whole or absent: written beside their place, synced to the disk, renamed."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS_FILE = "foveate.yaml"  # of a run: by it and its content a run directory is known
BESIDE = ".new"  # what a name ends in while its content is being written


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside ``path`` to write a file to, which takes its place if all goes well and is removed if not.

    A reader, or a crash, finds the old content or the new, never a part.
    """
    beside = _beside(path)
    try:
        yield beside
        sync_file(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def replacing_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives an empty folder beside ``path`` to fill, which takes its place if all goes well and is removed if not.

    Args:
        overwrite: a folder that is there goes; between that and the renaming a crash leaves none.

    Raises:
        OSError: ``path`` is there, not empty, and not to be overwritten.
    """
    beside = _beside(path)
    shutil.rmtree(beside, ignore_errors=True)  # of a killed process that had this one's number
    beside.mkdir(parents=True)
    try:
        yield beside
        sync_tree(beside)
        if overwrite:
            shutil.rmtree(path, ignore_errors=True)
        beside.replace(path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_folder(path.parent)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{BESIDE}")  # two processes do not write the same


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file by ``content``, text as UTF-8."""
    with replacing(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def copy_atomically(source: Path, target: Path) -> None:
    """Replace ``target`` by a copy of ``source``."""
    with replacing(target) as beside:
        shutil.copyfile(source, beside)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes have left beside the files of ``folder``; no other process may be writing there."""
    for left in folder.glob(f".*{BESIDE}"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def sync_file(path: Path) -> None:
    with path.open("rb+") as file:  # some systems sync only what is open for writing
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of a file system that syncs no folders
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Sync every file below a folder, and the folders themselves."""
    for path in sorted(folder.rglob("*")):
        (sync_folder if path.is_dir() else sync_file)(path)
    sync_folder(folder)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that there is no space left, or no quota."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # safetensors and tokenizers report the failure of their writers as text, without the number
    return bool(re.search(r"os error (28|122)\b|No space left on device|Disk quota exceeded", str(error)))
