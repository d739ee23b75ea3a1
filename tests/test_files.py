from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from foveate.files import (
    copy_atomically,
    is_disk_full,
    remove_unfinished,
    replacing,
    replacing_folder,
    sync_tree,
    write_atomically,
)

HANDLES = Path("/proc/self/fd")


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_content_is_replaced(tmp_path) -> None:
    for content in ("naïve", b"\xff\x00", ""):
        write_atomically(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == (content.encode() if isinstance(content, str) else content)
    copy_atomically(tmp_path / "file", tmp_path / "copy")
    assert names(tmp_path) == {"file", "copy"}


def test_until_the_end_the_old_content_is_there(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as beside:
        beside.write_text("half")
        assert path.read_text() == "old"
    assert path.read_text() == "half"
    with pytest.raises(KeyboardInterrupt), replacing(path) as beside:
        beside.write_text("other")
        raise KeyboardInterrupt
    assert path.read_text() == "half"
    assert names(tmp_path) == {"file"}


def test_a_folder_appears_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "folder"
    with pytest.raises(KeyboardInterrupt), replacing_folder(path) as beside:
        (beside / "a").write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == set()
    with replacing_folder(path) as beside:
        (beside / "sub").mkdir()
        (beside / "sub" / "a").write_text("whole")
        assert not path.exists()
    assert (path / "sub" / "a").read_text() == "whole"
    with pytest.raises(OSError, match="not empty"), replacing_folder(path):
        pass
    with replacing_folder(path, overwrite=True) as beside:
        (beside / "b").write_text("")
    assert names(path) == {"b"}
    assert names(tmp_path) == {"folder"}


@pytest.mark.skipif(not HANDLES.exists(), reason="this machine does not tell what a handle is of")
def test_everything_is_synced_before_it_is_renamed(tmp_path, monkeypatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(str((HANDLES / str(handle)).readlink())))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("")
    sync_tree(tmp_path)
    assert set(synced) == {str(tmp_path), str(tmp_path / "sub"), str(tmp_path / "sub" / "a")}
    synced.clear()
    write_atomically(tmp_path / "b", "")
    assert synced == [str(tmp_path / f".b.{os.getpid()}.new"), str(tmp_path)]


def test_what_killed_processes_left_can_be_removed(tmp_path) -> None:
    (tmp_path / ".model.12.new").write_text("half")
    (tmp_path / ".folder.13.new").mkdir()
    (tmp_path / ".lock").write_text("")
    remove_unfinished(tmp_path)
    assert names(tmp_path) == {".lock"}


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (Exception("No space left on device (os error 28)"), True),  # of tokenizers
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("os error 281"), False),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error, full) -> None:
    assert is_disk_full(error) is full
