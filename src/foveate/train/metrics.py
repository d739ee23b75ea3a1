"""The log of a run: one JSON object per line in ``metrics.jsonl``, and TensorBoard's files if they are wanted.

Every record has ``kind``, ``step``, ``tokens`` (trained on so far) and ``elapsed`` (seconds, of all sessions). One of
kind ``train`` adds ``loss`` (nats per token, the mean since the record before), ``lr`` and ``grad_norm`` (before
clipping) of its step, and ``tokens_per_s`` (validating and saving not counted); one of kind ``valid`` adds ``bpb``,
``perplexity``, ``nll_per_token``, ``valid_tokens`` and ``valid_bytes``.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError

METRICS_FILE = "metrics.jsonl"


class Metrics:
    """Appends records to ``metrics.jsonl``, after cutting off what a resumed run is going to write again.

    Args:
        keep_bytes: how much of an existing file stands: its length when the checkpoint was saved; 0 for a new run.
    """

    def __init__(self, run: Path, *, keep_bytes: int = 0, tensorboard: bool = False) -> None:
        self.path = run / METRICS_FILE
        self.file = self.path.open("ab")
        if self.file.tell() > keep_bytes:
            self.file.truncate(keep_bytes)
        self.board = _open_board(run) if tensorboard else None

    def add(self, record: dict[str, Any]) -> None:
        # one write per line: a reader never sees half a record unless the machine stops within it
        self.file.write(json.dumps(record).encode() + b"\n")
        self.file.flush()
        if self.board is not None:
            _draw(self.board, record)

    def sync(self) -> int:
        """Make every record so far durable; returns the file's length in bytes."""
        os.fsync(self.file.fileno())
        return os.fstat(self.file.fileno()).st_size

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()


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
