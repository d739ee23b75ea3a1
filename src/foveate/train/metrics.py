"""The log of a run: one JSON object per line in ``metrics.jsonl``, and TensorBoard's files if they are wanted.

Every record has ``kind``, ``step``, ``tokens`` (trained on so far) and ``elapsed`` (seconds, of all sessions). One of
kind ``train`` adds ``loss`` (nats per token, the mean since the record before), ``lr`` and ``grad_norm`` (before
clipping) of its step, ``tokens_per_s`` (validating and saving not counted) and ``memory_bytes``, the most that this
session's process had so far: tensors on a GPU, else what was resident. One of kind ``valid`` adds ``bpb``,
``perplexity``, ``nll_per_token``, ``valid_tokens`` and ``valid_bytes``; one of kind ``sample`` adds ``prompt`` and
``text``, with which the model goes on; one of kind ``skipped`` is a step whose loss or gradient was too bad to learn
from, and adds ``loss`` and ``text``, what the step was to learn. A number that is none is ``null``.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError
from foveate.files import copy_atomically, write_atomically
from foveate.train.tracking import Trackers

METRICS_FILE = "metrics.jsonl"


class Metrics:
    """Appends records to ``metrics.jsonl``, which begins as a checkpoint left it.

    Args:
        trackers: services that are told the same.
        checkpoint: the folder of the checkpoint that the run goes on from, which has its own copy; None for a new run.
    """

    def __init__(
        self,
        run: Path,
        *,
        checkpoint: Path | None = None,
        tensorboard: bool = False,
        trackers: Trackers | None = None,
    ) -> None:
        self.trackers = trackers
        self.path = run / METRICS_FILE
        if checkpoint is None:
            write_atomically(self.path, "")
        else:
            copy_atomically(checkpoint / METRICS_FILE, self.path)
        self.file = self.path.open("ab", buffering=0)
        self.board = _open_board(run) if tensorboard else None

    def add(self, record: dict[str, Any]) -> None:
        # one write per line: a reader never sees half a record unless the machine or the disk stops within it
        rest = memoryview(json.dumps(record).encode() + b"\n")
        while rest:
            rest = rest[self.file.write(rest) :]
        if self.board is not None:
            _draw(self.board, record)
        if self.trackers is not None:
            self.trackers.add(record)

    def save(self, checkpoint: Path) -> None:
        """Copy every record so far into the folder of a checkpoint."""
        shutil.copyfile(self.path, checkpoint / METRICS_FILE)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()
        if self.trackers is not None:
            self.trackers.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The records of a run directory, oldest first; none if it has no log yet."""
    path = run / METRICS_FILE
    if not path.exists():
        return []
    # a line without its end is what a killed run was writing
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def check_tensorboard() -> None:
    """Raise a ``FoveateError`` unless TensorBoard's files can be written here."""
    if importlib.util.find_spec("tensorboard") is None:
        raise FoveateError("--tensorboard needs one more package: pip install 'foveate[tensorboard]'")


def _open_board(run: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    kept = read_metrics(run)
    return SummaryWriter(str(run / "tensorboard"), purge_step=kept[-1]["step"] + 1 if kept else None)


def _draw(board: Any, record: dict[str, Any]) -> None:
    for name, value in record.items():
        if isinstance(value, float):
            board.add_scalar(f"{record['kind']}/{name}", value, record["step"])
    board.flush()
