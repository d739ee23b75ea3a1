"""The experiments: that their plans are valid, and what the table of results says."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from foveate.spec import parse_walk
from foveate.train.settings import TrainSettings
from foveate.values import count

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
GRIDS = [path for path in sorted(EXPERIMENTS.glob("*.yaml")) if "models" in yaml.safe_load(path.read_text())]


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)  # as for a program that is run: they import one another
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_every_model_of_a_grid_can_be_trained(path: Path) -> None:
    plan = yaml.safe_load(path.read_text())
    program("run").place_data(plan, "data")
    for shared in plan["groups"].values():
        for own in plan["models"].values():
            given = {**plan["train"], **shared, **own}
            if program_of := given.pop("program", None):
                extra = vars(program(Path(program_of).stem).options().parse_args([])).keys()
                given = {name: value for name, value in given.items() if name.replace("-", "_") not in extra}
            given = {name.replace("-", "_"): value for name, value in given.items()}
            given["tokens"] = count(str(given["tokens"]))
            for name in ("data", "valid_data"):
                named = given.get(name, ())
                given[name] = tuple(named) if isinstance(named, list) else (named,) if named else ()
            given["levels"] = tuple(given.get("levels", ()))
            assert parse_walk(TrainSettings(**given).walk)


def test_differences_are_taken_seed_by_seed() -> None:
    bpb = {("plain", 0): 2.0, ("plain", 1): 3.0, ("deep", 0): 1.9, ("deep", 1): 2.8, ("other", 1): 3.5}
    results = [
        {"group": "g", "model": model, "walk": "1@1", "seed": seed, "bpb": value}
        for (model, seed), value in bpb.items()
    ]
    plain, deep, other = program("run").table(results).splitlines()[2:]
    assert plain == "| g | plain | `1@1` | 2.0000 | 3.0000 | 2.5000 ± 6.3550 |  |"
    assert deep == "| g | deep | `1@1` | 1.9000 | 2.8000 | 2.3500 ± 5.7195 | -0.1500 ± 0.6355 |"
    assert other == "| g | other | `1@1` |  | 3.5000 | 3.5000 | +0.5000 |"


def test_without_a_folder_models_train_on_the_bundled_books() -> None:
    plan = {"train": {"data": "x.jsonl", "valid-data": "y.jsonl"}, "eval": {"data": "z.jsonl", "tokens": "1k"}}
    program("run").place_data(plan, None)
    assert plan == {"train": {"data": "books", "valid-fraction": 0.05}, "eval": {"tokens": "1k"}}


def test_the_front_has_what_nothing_beats_in_both() -> None:
    bpb, cost = {"a": 1.0, "b": 2.0, "c": 2.0, "d": 3.0}, {"a": 9.0, "b": 5.0, "c": 6.0, "d": 1.0}
    front = [name for name in bpb if program("pareto").is_on_front(name, bpb, cost)]
    assert front == ["a", "b", "d"]


def test_every_step_of_reproduce_names_files_that_exist(tmp_path) -> None:
    (tmp_path / "enwik8.xz").touch()
    command = [sys.executable, str(EXPERIMENTS / "reproduce.py"), "--list", "--data", str(tmp_path)]
    done = subprocess.run([*command, "--out", str(tmp_path / "runs")], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) > 10
    named = {word for line in lines for word in line.split() if word.startswith("experiments/")}
    assert named
    assert all((EXPERIMENTS.parent / name).exists() for name in named)


def test_only_names_groups_models_and_seeds_and_leaves_other_kinds_whole() -> None:
    cases = program("run").cases
    plan = {"groups": {"short": {}, "long": {}}, "models": {"plain": {}, "deep": {}}, "seeds": [0, 1]}
    assert len(list(cases(plan, []))) == 8
    assert list(cases(plan, ["deep", "1"])) == [("short", "deep", 1), ("long", "deep", 1)]
    assert list(cases(plan, ["long", "plain", "0"])) == [("long", "plain", 0)]


def test_a_table_of_nothing_is_one_line(tmp_path) -> None:
    plan, out = EXPERIMENTS / "start.yaml", tmp_path / "none"
    command = [sys.executable, EXPERIMENTS / "run.py", plan, "--out", out, "--table"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not out.exists()
