"""A folder of arrays on disk: written beside its place and moved there whole, checked before it is believed."""

from __future__ import annotations

import json
import os
import shutil
import sys
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from foveate.data.reading import say
from foveate.errors import FoveateError, first_line
from foveate.files import is_disk_full, replacing_folder

MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """``$FOVEATE_CACHE``, or ``~/.cache/foveate``."""
    chosen = os.environ.get("FOVEATE_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "foveate"


class TokenFile:
    """Numbers in a file, read where they are asked for: ``tokens[start:end]`` is an array, ``len(tokens)`` their count.

    Not a memory map: of a map that another process cuts short the system kills whoever reads it. Pickling one carries
    the name of the file, not the numbers.
    """

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.path = path
        self.dtype = dtype
        self._handle = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)
        self._length = path.stat().st_size // dtype.itemsize

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, where: slice) -> np.ndarray:
        """Raises FoveateError where the file has become shorter."""
        start, end, step = where.indices(self._length)
        assert step == 1
        wanted = max(0, end - start) * self.dtype.itemsize
        raw = self._read(wanted, start * self.dtype.itemsize)
        if len(raw) != wanted:
            raise FoveateError(f"{self.path} was cut short while it was read; start again: it is then made anew")
        return np.frombuffer(raw, self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype)

    def _read(self, size: int, offset: int) -> bytes:
        if not hasattr(os, "pread"):
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        parts = []
        while size and (part := os.pread(self._handle, size, offset)):  # a call gives 2 GiB at most
            parts.append(part)
            size, offset = size - len(part), offset + len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenFile, (self.path, self.dtype)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What ``load_arrays`` found: the arrays by name, one of them as a ``TokenFile``, and the notes left with them."""

    arrays: dict[str, Any]
    notes: tuple[str, ...]


def load_arrays(folder: Path, names: tuple[str, ...], *, opened: str) -> Stored | None:
    """The arrays of ``folder``, the one called ``opened`` as a ``TokenFile``.

    None where the folder is missing or damaged: no manifest, or a file that is not what the manifest says, to the bit;
    of damage a line on standard error tells.
    """
    if not (folder / MANIFEST).exists():
        return None
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        arrays: dict[str, Any] = {}
        for name in names:
            path = folder / name
            dtype, length = np.dtype(manifest[name]["dtype"]), manifest[name]["length"]
            if length < 1 or path.stat().st_size != length * dtype.itemsize:
                raise ValueError(f"{name} has {path.stat().st_size:,} bytes")
            if _checksum(path) != manifest[name]["crc32"]:
                raise ValueError(f"the contents of {name} are not those that were written")
            arrays[name] = TokenFile(path, dtype) if name == opened else np.fromfile(path, dtype)
        return Stored(arrays=arrays, notes=tuple(manifest["notes"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"the tokens kept in {folder} are damaged ({first_line(error)}); they are made again")
        return None


def _checksum(path: Path) -> int:
    """CRC-32 of a file: some GB a second."""
    checksum = 0
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            checksum = zlib.crc32(part, checksum)
    return checksum


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


def write_manifest(folder: Path, arrays: Mapping[str, np.dtype], notes: Sequence[str] = ()) -> None:
    """Note each array's dtype, length and checksum, for ``load_arrays`` to check, and what else is to be known."""
    manifest: dict[str, Any] = {"notes": list(notes)}
    for name, dtype in arrays.items():
        path = folder / name
        length = path.stat().st_size // dtype.itemsize
        manifest[name] = {"dtype": dtype.name, "length": length, "crc32": _checksum(path)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
