"""Services that show how runs went, told the records of the log through accelerate's trackers."""

from __future__ import annotations

import importlib.util
import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.errors import FoveateError, first_line
from foveate.files import write_atomically

if TYPE_CHECKING:
    from foveate.train.settings import TrainSettings

PROJECT = "foveate"
TRACKERS_FILE = "trackers.json"  # under which names the services know a run, for when it is gone on with


def check_trackers(names: Sequence[str]) -> None:
    """Raise a ``FoveateError`` unless the packages of all these services are here."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise FoveateError(f"--report-to {name} needs one more package: pip install {name}")


class Trackers:
    """The services of ``settings.report_to`` but TensorBoard, which is told by ``Metrics``.

    A service that fails later on is left out from then on, and ``note`` told; the run goes on.

    Raises:
        FoveateError: a service cannot be reached.
    """

    def __init__(self, settings: TrainSettings, run: Path, note: Callable[[str], None]) -> None:
        self.note = note
        self.trackers: list[Any] = []
        file = run / TRACKERS_FILE
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if settings.report_to:
            _let_accelerate_know(settings.device)
        for name in settings.report_to:
            if name == "tensorboard":
                continue
            try:
                is_new = name not in known
                tracker = _make(name, run, known)
                tracker.start()
                if name == "mlflow":
                    known[name] = tracker.tracker.info.run_id
                if is_new:  # MLflow lets no setting change later
                    tracker.store_init_configuration({key: _plain(value) for key, value in vars(settings).items()})
            except Exception as error:  # of which kind depends on the service
                raise FoveateError(f"--report-to {name}: {first_line(error)}") from None
            self.trackers.append(tracker)
        if known:
            write_atomically(file, json.dumps(known))

    def add(self, record: dict[str, Any]) -> None:
        values = {f"{record['kind']}/{name}": value for name, value in record.items() if isinstance(value, float)}
        for tracker in list(self.trackers):
            try:
                # accelerate 1.10 tells trackio no step
                told = tracker.tracker if tracker.name == "trackio" else tracker
                told.log(values, step=record["step"])
            except Exception as error:  # of which kind depends on the service
                self.trackers.remove(tracker)
                self.note(f"{tracker.name} is told no more, it failed: {first_line(error)}")

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.finish()


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else str(value)


def _let_accelerate_know(device: str) -> None:
    """Of the processes there are: its trackers ask."""
    from accelerate import PartialState

    PartialState(cpu=device == "cpu")


def _make(name: str, run: Path, known: dict[str, str]) -> Any:
    from accelerate import tracking

    if name == "mlflow":
        return tracking.MLflowTracker(PROJECT, run_name=run.name, run_id=known.get(name))
    known.setdefault(name, f"{run.name}-{secrets.token_hex(4)}")
    if name == "trackio":
        return tracking.TrackioTracker(PROJECT, name=known[name], resume="allow")
    return tracking.WandBTracker(PROJECT, name=run.name, id=known[name], resume="allow", dir=str(run))
