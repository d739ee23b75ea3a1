"""Checkpoints that are whole or absent.

A checkpoint is written beside its place, synced to the disk, listed in a manifest with sizes and checksums, and then
renamed. A folder named ``checkpoint-N`` is therefore whole, unless something damaged it later: its manifest tells.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError
from foveate.loading.manifest import checkpoint_steps, find_damage, read_manifest, sync_folder, write_manifest


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A verified checkpoint: its folder, its step, and what was noted in its manifest."""

    path: Path
    step: int
    notes: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run directory, of which the newest ``keep`` are kept."""

    def __init__(self, run: Path, *, keep: int = 2) -> None:
        self.run = run
        self.keep = keep

    def path(self, step: int) -> Path:
        return self.run / f"checkpoint-{step}"

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, newest first, whole or not."""
        return checkpoint_steps(self.run)

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step, known to be whole."""
        manifest = read_manifest(self.path(step))
        assert manifest is not None
        return Checkpoint(path=self.path(step), step=step, notes=manifest)

    @contextlib.contextmanager
    def writing(self, step: int) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield ``(folder, notes)`` to write one checkpoint into; afterwards it is in place, or nothing has changed.

        The folder's parent holds nothing else; its name is the checkpoint's. ``notes`` ends up in the manifest.

        Raises:
            FoveateError: the disk is full; earlier checkpoints are untouched.
        """
        staging = self.run / ".saving"
        self.clear_unfinished()
        notes: dict[str, Any] = {}
        try:
            folder = staging / self.path(step).name
            folder.mkdir(parents=True)
            yield folder, notes
            write_manifest(folder, notes | {"step": step})
            self._put_in_place(folder, step)
        except BaseException as error:
            shutil.rmtree(staging, ignore_errors=True)
            if is_disk_full(error):
                raise FoveateError(
                    f"no space left for the checkpoint of step {step} in {self.run}{self._left()}"
                ) from None
            raise
        shutil.rmtree(staging)
        self.prune()

    def prune(self) -> None:
        """Remove all but the newest ``keep``."""
        for step in self.steps()[self.keep :]:
            shutil.rmtree(self.path(step))

    def _put_in_place(self, folder: Path, step: int) -> None:
        final = self.path(step)
        if final.exists():  # a damaged one that the run has reached again, or one saved twice at the same step
            final.rename(folder.parent / "replaced")
        folder.rename(final)
        sync_folder(self.run)

    def _left(self) -> str:
        steps = self.steps()
        return f"; {self.path(steps[0]).name} is whole: free some space, then add --resume" if steps else ""

    def clear_unfinished(self) -> bool:
        """Remove what an interrupted save has left; True if there was something."""
        staging = self.run / ".saving"
        left = staging.exists()
        if left:
            shutil.rmtree(staging)
        return left

    def newest_whole(self, note: Callable[[str], None] = lambda line: None) -> Checkpoint | None:
        """The newest checkpoint that its manifest confirms; None if there are none at all.

        Damaged ones are passed over, reported through ``note`` and renamed, so that they are not counted as kept.

        Raises:
            FoveateError: there are checkpoints, and every one of them is damaged.
        """
        damages: list[str] = []
        for step in self.steps():
            path = self.path(step)
            damage = find_damage(path)
            if damage is None:
                for damaged in damages:
                    note(f"passed over {damaged}")
                self._set_aside(newer_than=step)
                return self.at(step)
            damages.append(f"{path.name}: {damage}")
        if damages:
            raise FoveateError(
                f"no checkpoint in {self.run} is whole ({'; '.join(damages)}); start again with --overwrite"
            )
        return None

    def _set_aside(self, *, newer_than: int) -> None:
        for step in self.steps():
            if step > newer_than:
                aside = self.run / f"damaged-checkpoint-{step}"
                shutil.rmtree(aside, ignore_errors=True)
                self.path(step).rename(aside)


def is_disk_full(error: BaseException) -> bool:
    # safetensors reports the failure of its writer as text, without the number
    return (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or (
        type(error).__name__ == "SafetensorError" and bool(re.search(r"os error (28|122)\b|No space", str(error)))
    )
