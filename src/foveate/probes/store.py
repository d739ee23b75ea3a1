"""Losses kept on disk while a long probe runs, so that it goes on where it was interrupted."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from foveate.errors import FoveateError
from foveate.files import replacing

LOSSES_FILE = "losses.npz"
SECONDS_BETWEEN_SAVES = 20.0


class Losses:
    """Arrays float32 [sequences, ...], one for each thing measured, filled from the first sequence on.

    With a ``folder`` they are saved to its ``losses.npz`` now and then and at the end, and found there again.

    Args:
        shapes: of each array.
        identity: what the losses are of; those found in the folder must be of the same.

    Raises:
        FoveateError: the folder holds losses of something else, or a damaged file.
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]], identity: dict[str, Any], folder: Path | None) -> None:
        self.done = 0
        self._path = folder / LOSSES_FILE if folder is not None else None
        self._identity = json.loads(json.dumps(identity))  # as it is read again: tuples are lists
        self._saved = time.monotonic()
        self.arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        if self._path is not None and self._path.exists():
            self._load(self._path)

    def _load(self, path: Path) -> None:
        try:
            # opened here: np.load leaves a damaged file open
            with path.open("rb") as raw, np.load(raw) as file:
                identity = json.loads(str(file["identity"]))
                differing = [key for key, value in self._identity.items() if identity.get(key) != value]
                if not differing:
                    self.arrays = {name: file[name] for name in self.arrays}
                    self.done = int(file["done"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise FoveateError(f"{path} is damaged; remove it to begin again") from None
        if differing:
            raise FoveateError(
                f"--out: {path.parent} holds an experiment of another {' and '.join(differing)}; choose another folder"
            )

    def add(self, rows: dict[str, np.ndarray]) -> None:
        """The losses of the next sequences, the same number in every array."""
        number = {len(values) for values in rows.values()}
        assert len(number) == 1
        assert rows.keys() == self.arrays.keys()
        end = self.done + number.pop()
        for name, values in rows.items():
            self.arrays[name][self.done : end] = values
        self.done = end
        if time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        if self._path is None:
            return
        with replacing(self._path) as beside, beside.open("wb") as file:
            np.savez(file, identity=json.dumps(self._identity), done=self.done, **self.arrays)  # type: ignore[arg-type]
        self._saved = time.monotonic()
