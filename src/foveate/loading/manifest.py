"""A folder's manifest: the sizes and checksums of its files, by which damage is told from wholeness."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
DIGEST = "blake2b"


def write_manifest(folder: Path, notes: Mapping[str, Any], files: Iterable[Path] | None = None) -> None:
    """Sync ``files`` (default: all in the folder) to the disk, then write their sizes and checksums beside them."""
    chosen = sorted(path for path in folder.rglob("*") if path.is_file()) if files is None else sorted(files)
    entries = {}
    for path in chosen:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, DIGEST).hexdigest()
        entries[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, DIGEST: digest}
    for subfolder in {path.parent for path in chosen} - {folder}:
        sync_folder(subfolder)
    manifest = {**notes, "files": entries}
    write_atomically(folder / MANIFEST, json.dumps({**manifest, DIGEST: _digest(manifest)}, indent=1) + "\n")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None if there is none, or one that is not as it was written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.pop(DIGEST, None) != _digest(manifest):
        return None
    return manifest


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def find_damage(folder: Path, *, checksums: bool = True) -> str | None:
    """What is wrong with a folder by its own manifest, naming the file; None if nothing is."""
    manifest = read_manifest(folder)
    if manifest is None:
        return f"{MANIFEST} is {'damaged' if (folder / MANIFEST).exists() else 'missing'}"
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size != entry["size"]:
            return f"{name} has {size:,} bytes instead of {entry['size']:,}"
        if checksums:
            with path.open("rb") as file:
                if hashlib.file_digest(file, DIGEST).hexdigest() != entry[DIGEST]:
                    return f"{name} has changed since it was written"
    return None


def checkpoint_steps(run: Path) -> list[int]:
    """The N of the folders ``checkpoint-N`` of a run directory, newest first, whole or not."""
    names = [re.fullmatch("checkpoint-([0-9]+)", entry.name) for entry in run.glob("checkpoint-*")]
    return sorted((int(name[1]) for name in names if name), reverse=True)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by ``text``: a reader, or a crash, finds the old content or the new, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
