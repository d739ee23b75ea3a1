"""A folder's manifest: the sizes and checksums of its files, by which damage is told from wholeness."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from foveate.files import sync_file, sync_folder, write_atomically

MANIFEST = "manifest.json"
DIGEST = "blake2b"


def write_manifest(folder: Path, notes: Mapping[str, Any], files: Iterable[Path] | None = None) -> None:
    """Sync ``files`` (default: all in the folder) to the disk, then write their sizes and checksums beside them."""
    chosen = sorted(path for path in folder.rglob("*") if path.is_file()) if files is None else sorted(files)
    entries = {}
    for path in chosen:
        sync_file(path)
        with path.open("rb") as file:
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
        if not isinstance(manifest, dict) or manifest.pop(DIGEST, None) != _digest(manifest):
            return None
    except (OSError, ValueError, RecursionError):
        return None
    return manifest if _lists_files(manifest.get("files")) else None


def _lists_files(entries: Any) -> bool:
    return isinstance(entries, dict) and all(
        isinstance(entry, dict) and isinstance(entry.get("size"), int) and DIGEST in entry for entry in entries.values()
    )


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
