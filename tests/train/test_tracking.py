"""What trackers are told: through accelerate's own classes, of services that are made up here."""

from __future__ import annotations

import importlib.machinery
import json
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foveate.errors import FoveateError
from foveate.train.metrics import read_metrics
from foveate.train.run import resume, train
from train.comparing import Killed, kill_at


class Service(types.ModuleType):
    """What accelerate calls of trackio and of wandb."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.inits: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.told: list[tuple[int, dict[str, float]]] = []
        self.finished = 0
        self.fails_at = -1

    def init(self, **given: Any) -> Service:
        self.inits.append(given)
        self.config = self.config or type("Config", (dict,), {"update": lambda s, v, **_: dict.update(s, v)})()
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        if step == self.fails_at:
            raise ConnectionError("the line is down")
        self.told.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture(params=["trackio", "wandb"])
def service(request, monkeypatch) -> Service:
    made = Service(request.param)
    monkeypatch.setitem(sys.modules, request.param, made)
    return made


def test_a_service_is_told_every_record_and_knows_the_run_again(settings, service) -> None:
    settings = replace(settings, report_to=(service.__name__,))
    with pytest.raises(Killed):
        train(settings, on_record=kill_at(8, "train"))
    result = resume(settings.out)
    first, second = service.inits
    assert first == second
    assert first["project"] == "foveate"
    assert service.config["walk"] == "1@1 1@4 1@1"
    records = read_metrics(result.path)
    for record in records:
        values = {f"{record['kind']}/{name}": value for name, value in record.items() if isinstance(value, float)}
        told = [given for step, given in service.told if step == record["step"] and values.keys() == given.keys()]
        assert {name: value for name, value in told[-1].items() if "elapsed" not in name} == {
            name: value for name, value in values.items() if "elapsed" not in name
        }
    assert service.finished == 2


def test_another_run_in_its_place_has_another_name(settings, service) -> None:
    settings = replace(settings, report_to=(service.__name__,), tokens=128)
    train(settings)
    train(settings, overwrite=True)
    first, second = service.inits
    key = "name" if service.__name__ == "trackio" else "id"
    assert first[key] != second[key]


def test_a_service_that_fails_does_not_end_the_run(settings, service, capsys) -> None:
    service.fails_at = 4
    result = train(replace(settings, report_to=(service.__name__,)))
    assert result.finished
    assert f"{service.__name__} is told no more, it failed: the line is down" in capsys.readouterr().err
    assert [step for step, _ in service.told] == [2]


def test_one_that_cannot_be_reached_is_one_line(settings, service, monkeypatch) -> None:
    def refuse(**given: Any) -> None:
        raise ConnectionError("no such host")

    monkeypatch.setattr(service, "init", refuse)
    with pytest.raises(FoveateError, match=f"--report-to {service.__name__}: no such host"):
        train(replace(settings, report_to=(service.__name__,)))


def test_a_package_that_is_missing_is_named(settings, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FoveateError, match="--report-to mlflow needs one more package: pip install mlflow"):
        train(replace(settings, report_to=("mlflow",)))
    assert not Path(settings.out).exists()
    with pytest.raises(FoveateError, match="--report-to: 'paper' is unknown; choose from tensorboard, wandb"):
        replace(settings, report_to=("paper",))


def test_mlflow_is_given_its_run_again(settings, tmp_path, monkeypatch) -> None:
    from accelerate import tracking

    made: list[tuple[Any, dict[str, Any]]] = []

    class Fake:
        name = "mlflow"
        tracker = types.SimpleNamespace(info=types.SimpleNamespace(run_id="r1"))

        def __init__(self, *args: Any, **given: Any) -> None:
            made.append((args, given))

        def start(self) -> None: ...
        def store_init_configuration(self, values: dict[str, Any]) -> None: ...
        def log(self, values: dict[str, float], step: int) -> None: ...
        def finish(self) -> None: ...

    monkeypatch.setattr(tracking, "MLflowTracker", Fake)
    monkeypatch.setattr("foveate.train.run.check_trackers", lambda names: None)
    train(replace(settings, report_to=("mlflow",), tokens=128))
    assert json.loads((Path(settings.out) / "trackers.json").read_text()) == {"mlflow": "r1"}
    resume(settings.out, {"tokens": 256})
    assert [given["run_id"] for _, given in made] == [None, "r1"]
