"""Train and evaluate every model of an experiment, and print its table.

    python experiments/run.py experiments/retina.yaml --out runs/retina [--only bytes] [--data DIR]

An experiment is a YAML file: ``train`` holds settings all models share, ``groups`` those of a group to be compared,
``models`` what differs (``program``: train with it instead of ``foveate``), ``seeds`` the seeds, ``eval`` the arguments
of ``foveate eval``. A model that is already trained or evaluated is not trained or evaluated again; one that was
interrupted goes on. Results are JSON lines in ``OUT/results.jsonl``, a line per model, group and seed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import yaml


def flags(settings: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in settings.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def foveate(*words: str, program: str | None = None) -> str:
    """Run a command of foveate, or of a program here that is called alike; its progress goes to standard error."""
    start = ["-m", "foveate"] if program is None else [str(Path(__file__).with_name(program))]
    command = [sys.executable, *start, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"foveate {words[0]} ended with {done.returncode}, see above; what was done stays")
    return done.stdout


def commit() -> str:
    """Of the code that runs, marked where files differ from it; empty outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def half_width(values: list[float]) -> float:
    """Half of a 95% confidence interval of the mean, by Student's t (0 of a single value)."""
    t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(len(values))
    return t * statistics.stdev(values) / len(values) ** 0.5 if t else 0.0


def read(ledger: Path) -> list[dict[str, Any]]:
    """The results so far; several processes may share them, each with models of its own (``--only``)."""
    return [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []


def estimate(values: list[float], sign: str = "") -> str:
    """The mean, with half of its interval where there are several values."""
    interval = f" ± {half_width(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.4f}{interval}"


def table(results: list[dict[str, Any]]) -> str:
    """A row per group and model; differences are to the first model of the group, seed by seed."""
    seeds = sorted({r["seed"] for r in results})
    heads = ["group", "model", "walk", *(f"seed {seed}" for seed in seeds), "bits per byte", "difference"]
    rows = [heads, ["---"] * len(heads)]
    first: dict[str, dict[int, float]] = {}
    for group, model, walk in dict.fromkeys((r["group"], r["model"], r["walk"]) for r in results):
        bpb = {r["seed"]: r["bpb"] for r in results if (r["group"], r["model"]) == (group, model)}
        paired = [bpb[seed] - other for seed, other in first.setdefault(group, bpb).items() if seed in bpb]
        difference = "" if bpb is first[group] or not paired else estimate(paired, "+")
        each = [f"{bpb[seed]:.4f}" if seed in bpb else "" for seed in seeds]
        rows.append([group, model, f"`{walk}`", *each, estimate(list(bpb.values())), difference])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def place_data(plan: dict[str, Any], folder: str | None) -> None:
    """Complete the paths of the plan; without a folder, its models train on the bundled books and a part held out."""
    if folder is None:
        plan["train"] |= {"data": "books", "valid-fraction": 0.05}
        plan["train"].pop("valid-data", None)
        plan["eval"].pop("data")
        return
    for part, key in (("train", "data"), ("train", "valid-data"), ("eval", "data")):
        named = plan.get(part, {}).get(key)
        if named is not None:
            places = [str(Path(folder, name)) for name in (named if isinstance(named, list) else [named])]
            plan[part][key] = places if isinstance(named, list) else places[0]


def cases(plan: dict[str, Any], only: list[str]) -> Iterator[tuple[str, str, int]]:
    """Group, model and seed of what is to run: of each kind those that ``only`` names, all where it names none."""
    kinds = (list(plan["groups"]), list(plan["models"]), plan["seeds"])
    groups, models, seeds = ([name for name in names if str(name) in only] or names for names in kinds)
    for seed, group, model in product(seeds, groups, models):
        yield group, model, seed


def train_and_score(plan: dict[str, Any], group: str, model: str, seed: int, out: Path) -> dict[str, Any]:
    """The record of one model; what was trained before is kept, what was interrupted goes on."""
    run = out / f"{group}-{model}-{seed}".replace(" ", "_")
    settings = {**plan["train"], **plan["groups"][group], **plan["models"][model], "seed": seed, "out": run}
    program = settings.pop("program", None)
    if not (run / "model.safetensors").exists():
        resume = ["--resume"] if (run / "foveate.yaml").exists() else []
        foveate("train", *flags(settings), *resume, program=program)
    score = json.loads(foveate("eval", str(run), *flags(plan["eval"]), "--json", program=program))
    seconds = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["elapsed"]
    made_by = {"training_s": seconds, "machine": platform.processor() or platform.machine(), "commit": commit()}
    return {"group": group, "model": model, "walk": settings["walk"], "seed": seed, **score, **made_by}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", help="folder of the experiment's data (default: the bundled books instead)")
    parser.add_argument("--only", nargs="*", default=[], help="groups, models or seeds to run; default: all")
    parser.add_argument("--table", action="store_true", help="train nothing, print what is there")
    args = parser.parse_args()
    if not args.experiment.is_file():
        parser.error(f"there is no experiment {args.experiment}")
    plan = yaml.safe_load(args.experiment.read_text())
    known = {*plan["groups"], *plan["models"], *map(str, plan["seeds"])}
    if unknown := sorted(set(args.only) - known):
        parser.error(f"--only: no {', '.join(unknown)} in {args.experiment}; choose of {', '.join(map(str, known))}")
    place_data(plan, args.data)
    ledger = args.out / "results.jsonl"
    if args.table and not ledger.exists():
        parser.error(f"--table: there is no {ledger}; leave it out to train the models first")
    args.out.mkdir(parents=True, exist_ok=True)
    done = {(r["group"], r["model"], r["seed"]) for r in read(ledger)}
    for case in [] if args.table else cases(plan, args.only):
        if case not in done:
            record = train_and_score(plan, *case, args.out)
            with ledger.open("a") as file:
                file.write(json.dumps(record) + "\n")
    order = {(group, model): place for place, (group, model) in enumerate(product(plan["groups"], plan["models"]))}
    print(table(sorted(read(ledger), key=lambda r: order.get((r["group"], r["model"]), len(order)))))


if __name__ == "__main__":
    main()
