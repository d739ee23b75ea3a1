"""A folder of arrays on disk: written beside its place and moved there whole, checked before it is believed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from foveate.errors import FoveateError
from foveate.files import is_disk_full, replacing_folder

MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """``$FOVEATE_CACHE``, or ``~/.cache/foveate``."""
    chosen = os.environ.get("FOVEATE_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "foveate"


def load_arrays(folder: Path, names: tuple[str, ...], *, mapped: str) -> dict[str, np.ndarray] | None:
    """The arrays of ``folder``, the one called ``mapped`` as a read-only memory map.

    None where the folder is missing or damaged: no manifest, or a file that is not as long as the manifest says.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        arrays = {}
        for name in names:
            path = folder / name
            dtype, length = np.dtype(manifest[name]["dtype"]), manifest[name]["length"]
            if length < 1 or path.stat().st_size != length * dtype.itemsize:
                return None
            arrays[name] = np.memmap(path, dtype, "r") if name == mapped else np.fromfile(path, dtype)
        return arrays
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` alone among all processes of this machine; its parent is made where missing.

    Raises:
        FoveateError: the cache cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(f"{folder}.lock")
        try:
            held.acquire(timeout=0)
        except Timeout:
            print("waiting for another process that is tokenising the same text", file=sys.stderr)
            held.acquire()
    except (OSError, NotImplementedError) as error:  # the second where the file system knows no locks
        raise FoveateError(
            f"the cache {folder.parent} cannot be written ({error}); set FOVEATE_CACHE to a folder of yours"
        ) from None
    try:
        yield
    finally:
        held.release()


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to fill, which takes the place of ``folder`` if all goes well and is removed if not.

    The caller holds the lock of ``folder``.

    Raises:
        FoveateError: the disk is full.
    """
    for left_behind in folder.parent.glob(f".{folder.name}.*"):  # by a process that was killed
        shutil.rmtree(left_behind, ignore_errors=True)
    try:
        with replacing_folder(folder, overwrite=True) as new:
            yield new
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise FoveateError(
            f"no space left for tokens in the cache {folder.parent}; free some, or set FOVEATE_CACHE to another folder"
        ) from None


def write_manifest(folder: Path, arrays: Mapping[str, tuple[np.dtype, int]]) -> None:
    """Note each array's dtype and length, for ``load_arrays`` to check."""
    manifest = {name: {"dtype": dtype.name, "length": length} for name, (dtype, length) in arrays.items()}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
