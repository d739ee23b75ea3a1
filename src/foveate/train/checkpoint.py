"""Checkpoints that are whole or absent.

A checkpoint is written beside its place, synced to the disk, listed in a manifest with sizes and checksums, and then
renamed; one that goes is renamed before it is removed. A folder named ``checkpoint-N`` is therefore whole, unless
something damaged it later: its manifest tells.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError
from foveate.files import is_disk_full, remove_unfinished, sync_folder
from foveate.loading.manifest import checkpoint_steps, find_damage, read_manifest, write_manifest

FORMAT = 2  # raise it when a checkpoint that was saved before could not be resumed


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A verified checkpoint: its folder, its step, and what was noted in its manifest."""

    path: Path
    step: int
    notes: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run directory, of which the newest ``keep`` are kept, and the best.

    Attributes:
        scores: bits per byte by step, of those steps that were validated; the lowest is the best. None: all are alike.
    """

    def __init__(self, run: Path, *, keep: int = 2, keep_best: bool = True) -> None:
        self.run = run
        self.keep = keep
        self.keep_best = keep_best
        self.scores: dict[int, float] = {}

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
        self.clear_unfinished()
        notes: dict[str, Any] = {}
        try:
            folder = self._staging / self.path(step).name
            folder.mkdir(parents=True)
            yield folder, notes
            write_manifest(folder, notes | {"step": step, "format": FORMAT})
            self._put_in_place(folder, step)
        except BaseException as error:
            shutil.rmtree(self._staging, ignore_errors=True)
            if is_disk_full(error):
                raise FoveateError(
                    f"no space left for the checkpoint of step {step} in {self.run}{self.way_back()}"
                ) from None
            raise
        shutil.rmtree(self._staging)
        self.prune()

    def prune(self) -> None:
        """Remove all but the newest ``keep`` and the best."""
        best = self.best if self.keep_best else None
        for step in self.steps()[self.keep :]:
            if step != best:
                self._remove(self.path(step))

    @property
    def best(self) -> int | None:
        """The step with the lowest score among those that have one and are still there."""
        scored = [step for step in self.steps() if step in self.scores]
        return min(scored, key=lambda step: self.scores[step], default=None)

    @property
    def _staging(self) -> Path:
        return self.run / ".saving"

    def _remove(self, path: Path) -> None:
        removing = self._staging / path.name  # half a checkpoint has no checkpoint's name
        self._staging.mkdir(exist_ok=True)
        path.rename(removing)
        shutil.rmtree(self._staging)

    def _put_in_place(self, folder: Path, step: int) -> None:
        final = self.path(step)
        if final.exists():  # a damaged one that the run has reached again, or one saved twice at the same step
            final.rename(folder.parent / "replaced")
        folder.rename(final)
        sync_folder(self.run)

    def way_back(self) -> str:
        """The end of a line about a full disk."""
        steps = self.steps()
        saved = f"{self.path(steps[0]).name} is whole" if steps else "nothing was saved before"
        return f"; {saved}: free some, then foveate train --resume {self.run}"

    def clear_unfinished(self) -> list[str]:
        """Remove what an interrupted save or removal has left; the names of the checkpoints concerned."""
        remove_unfinished(self.run)
        left = sorted(path.name for path in self._staging.glob("*"))
        shutil.rmtree(self._staging, ignore_errors=True)
        return left

    def newest_whole(self, note: Callable[[str], None] = lambda line: None) -> Checkpoint | None:
        """The newest checkpoint that its manifest confirms; None if there are none at all.

        What was found is reported through ``note``. Damaged ones are passed over and renamed, so that they are not
        counted as kept.

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
                found = self.at(step)
                count, newest = len(found.notes["files"]), "newest whole" if damages else "newest"
                note(f"resuming from {path}: the {newest} one, its {count} files are as its manifest lists them")
                return found
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
