"""Train: the log of a run as it grows, read from where a visitor has read to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foveate.cost import Load, predict
from foveate.errors import FoveateError
from foveate.loading.manifest import checkpoint_steps
from foveate.pages.shelf import Shelf
from foveate.train.metrics import METRICS_FILE
from foveate.train.settings import settings_of

AT_ONCE = 1 << 20  # bytes of a log that one answer holds


def follow(shelf: Shelf, name: str, after: int, log: int) -> dict[str, Any]:
    """What a run has logged since byte ``after`` of the file numbered ``log``; of another file, all.

    Raises:
        FoveateError: the run has gone, or ``foveate train`` has not made it.
    """
    path = shelf.path(name)
    settings = settings_of(path)
    if settings is None:
        raise FoveateError(f"{name} is a model, not a run of foveate train: it has no log")
    records, after, log = _read(path / METRICS_FILE, after, log)
    steps = checkpoint_steps(path)
    return {
        "records": records,
        "after": after,
        "log": log,
        "tokens": settings.tokens,
        "walk": settings.walk,
        "checkpoint": max(steps, default=None),
    }


def memory(shelf: Shelf, name: str) -> dict[str, Any]:
    """What the walk alone predicts that a step of training takes, in bytes."""
    from foveate.data.tokenizer import load_tokenizer, vocabulary_size
    from foveate.loading import model_folder

    path = shelf.path(name)
    settings = settings_of(path)
    if settings is None:
        raise FoveateError(f"{name} is a model, not a run of foveate train")
    vocabulary = vocabulary_size(load_tokenizer(model_folder(path)))
    batch = -(-settings.batch // settings.accumulate)
    cost = predict(settings.spec, Load(context=settings.context, vocab_size=vocabulary, batch=batch))
    return {"training_bytes": cost.training_bytes, "kept_bytes": cost.total.backward_bytes}


def _read(file: Path, after: int, log: int) -> tuple[list[dict[str, Any]], int, int]:
    try:
        with file.open("rb") as stream:
            found = file.stat().st_ino & 0xFFFF_FFFF
            size = stream.seek(0, 2)
            start = after if found == log and after <= size else 0  # resuming begins another file
            stream.seek(start)
            raw = stream.read(AT_ONCE)
    except FileNotFoundError:
        return [], 0, 0
    # a line without its end is still being written
    whole = raw[: raw.rfind(b"\n") + 1]
    records = [json.loads(line) for line in whole.splitlines() if line.strip()]
    return records, start + len(whole), found
