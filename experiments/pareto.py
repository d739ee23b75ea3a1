"""Quality against cost: bits per byte of trained walks over the time and memory that each takes.

    python experiments/pareto.py experiments/families.yaml --runs runs/families --out runs/pareto

Takes the best group of every model in RUNS, by the mean over its seeds (see ``run.py``), measures decoding, training
and memory of all walks in turn with ``foveate bench`` at ``--hidden``, and draws each cost against the bits per byte. A
walk on the front, which no other beats in both, is marked. Costs that were measured are not measured again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
import yaml

from foveate.report.figures import COLOURS, STYLE, WIDTH, as_png, as_svg, new_figure

COSTS = {  # of a record of `foveate bench`, smaller is better
    "decode": ("ms_per_token", "ms per token decoded", 1.0),
    "train": ("train_tokens_per_s", "ms per 1,000 tokens trained", None),
    "memory": ("saved_bytes", "MB kept for backward", 1e-6),
}

Record = dict[str, Any]


def measure(kind: str, walks: list[str], hidden: int, out: Path) -> dict[str, float]:
    """The cost of each walk."""
    file = out / f"{kind}.jsonl"
    if not file.exists():
        words = [word for walk in walks for word in ("--walk", walk)]
        if kind == "memory":
            words.append("--no-peak")
        command = [sys.executable, "-m", "foveate", "bench", kind, *words, "--hidden", str(hidden), "--json"]
        done = subprocess.run([*command, "--context", "512"], check=True, stdout=subprocess.PIPE, text=True)
        file.write_text(done.stdout)
    key, _, scale = COSTS[kind]
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return {r["walk"]: r[key] * scale if scale else 1e6 / r[key] for r in records}


def by_group(results: list[Record], model: str) -> dict[str, list[float]]:
    """The bits per byte of a model in each group, a number for every seed."""
    found: dict[str, list[float]] = {}
    for record in results:
        if record["model"] == model:
            found.setdefault(record["group"], []).append(record["bpb"])
    return found


def is_on_front(name: str, bpb: dict[str, float], cost: dict[str, float]) -> bool:
    return not any(
        bpb[other] <= bpb[name] and cost[other] <= cost[name] and (bpb[other], cost[other]) != (bpb[name], cost[name])
        for other in bpb
    )


def draw(bpb: dict[str, float], costs: dict[str, dict[str, float]], out: Path) -> None:
    with matplotlib.rc_context(STYLE):
        figure = new_figure(WIDTH, 3.2)
        for ax, (kind, cost) in zip(figure.subplots(1, len(costs), sharey=True), costs.items(), strict=True):
            front = sorted((cost[name], bpb[name]) for name in bpb if is_on_front(name, bpb, cost))
            ax.step(*zip(*front, strict=True), where="post", color=COLOURS[0], linewidth=1, zorder=0)
            for at, name in enumerate(bpb):
                ax.plot(cost[name], bpb[name], "os^vD"[at // 6], color=COLOURS[at % 6], label=name, clip_on=False)
            ax.set(xscale="log", title=COSTS[kind][1])
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter("{x:g}")
        figure.axes[0].set_ylabel("bits per byte")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        (out / "pareto.svg").write_text(as_svg(figure))
        (out / "pareto.png").write_bytes(as_png(figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hidden", type=int, default=512, help="width at which costs are measured (default: 512)")
    args = parser.parse_args()
    if not (args.runs / "results.jsonl").exists():
        parser.error(f"{args.runs} has no results.jsonl; run experiments/run.py first")
    args.out.mkdir(parents=True, exist_ok=True)
    results = [json.loads(line) for line in (args.runs / "results.jsonl").read_text().splitlines()]
    walks = {name: own["walk"] for name, own in yaml.safe_load(args.experiment.read_text())["models"].items()}
    walks = {name: walk for name, walk in walks.items() if any(r["model"] == name for r in results)}
    best = {name: min(by_group(results, name).items(), key=lambda item: mean(item[1])) for name in walks}
    bpb = {name: mean(seeds) for name, (_, seeds) in best.items()}
    by_walk = {kind: measure(kind, list(walks.values()), args.hidden, args.out) for kind in COSTS}
    costs = {kind: {name: cost[walks[name]] for name in bpb} for kind, cost in by_walk.items()}
    heads = ["model", "walk", "best group", "seeds", "bits per byte", *(COSTS[kind][1] for kind in costs)]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for name, (group, seeds) in sorted(best.items(), key=lambda item: bpb[item[0]]):
        cells = [f"{cost[name]:.3g}" + " ★" * is_on_front(name, bpb, cost) for cost in costs.values()]
        print(f"| {name} | `{walks[name]}` | {group} | {len(seeds)} | {bpb[name]:.4f} | " + " | ".join(cells) + " |")
    print("★: no other walk is better in both the bits per byte and this cost")
    draw(bpb, costs, args.out)


if __name__ == "__main__":
    main()
