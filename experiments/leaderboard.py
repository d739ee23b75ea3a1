"""Print docs/leaderboard.md: every walk of a budget, the best first, with what it costs.

python experiments/leaderboard.py experiments/leaderboard.yaml > docs/leaderboard.md
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml
from run import half_width

from foveate.cost import Load, predict
from foveate.train.settings import TrainSettings

TIE = 0.02  # bits per byte by which another seed moves a model
HEADS = (
    "walk",
    "optimizer",
    "rate",
    "seeds",
    "bits per byte",
    "less the best plain",
    "layers",
    "runs per token",
    "MB for backward",
    "GFLOPs per 1,000 tokens",
    "seconds",
    "ms a step alone",
    "commit",
)
PAGE = """# Leaderboard of walks

Made by `python experiments/leaderboard.py experiments/leaderboard.yaml > docs/leaderboard.md` from the ledgers in
`experiments/ledgers`, which are what the runs wrote. Best first; what the numbers mean is in [lasting](lasting.md).

**A tie**: with one seed, less than {tie} bits per byte, by which another seed moves a model here; with several, an
interval of the paired difference that holds 0. Rows that tie with the best of their board are marked ≈.

Runs per token: of layers, each stride counted as often as it runs. Backward: kept for the backward of 1 x 512 tokens,
as `foveate info` predicts it for fp32. GFLOPs: of training. Seconds: of training as the runs were made, several at
once on the device: for speed, compare the time of a step alone, where it was measured.

## Add yours

1. Put a line with the walk under `models` of the board's plan; choose its rate as plain's was chosen, from a sweep.
   `python experiments/long.py experiments/PLAN.yaml --pack PACK --out runs/PLAN --only MODEL` trains and scores it
   (PACK: `experiments/long_data.py`); plans of `foveate train` run with `experiments/run.py`.
2. Add its lines of `runs/PLAN/results.jsonl` to the ledger, with `optimizer`, `commit`, `machine` and `beside`, how
   many others shared the device, and make this page again.
3. **To claim that one walk beats another**: the same text in the same order, both rates swept with both optimizers and
   the best of each inside its sweep, not at its end, three seeds or more, the interval of the paired difference clear
   of 0, and the walk not chosen on the text it is scored on. What has less is a direction.
"""


def rows(board: dict[str, Any], here: Path) -> tuple[list[list[str]], int]:
    """Cells of every model of a board, the best first, and how many models ran beside each."""
    records = [json.loads(line) for line in (here / board["ledger"]).read_text().splitlines()]
    plan = yaml.safe_load((here / board["plan"]).read_text())
    alone = {}
    if "steps" in board:
        steps = map(json.loads, (here / board["steps"]).read_text().splitlines())
        alone = {(s["walk"], s["optimizer"]): s["graph_ms"] for s in steps if s["group"] == "10M"}
    models: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        models.setdefault(record["model"], []).append(record)
    means = {name: statistics.mean(r["bpb"] for r in seeds) for name, seeds in models.items()}
    plain = min(means[name] for name, seeds in models.items() if " " not in seeds[0]["walk"])
    found = []
    for name in sorted(models, key=lambda model: means[model]):
        first = models[name][0]
        given = {**plan["train"], **plan["models"][name]}
        shape = {key: given[key] for key in ("hidden", "heads", "pooling", "expanding") if key in given}
        settings = TrainSettings(data=("books",), walk=first["walk"], levels=tuple(given.get("levels", ())), **shape)
        cost = predict(settings.spec, Load(context=512, vocab_size=4096))
        values = [r["bpb"] for r in models[name]]
        spread = f" ± {half_width(values):.4f}" if len(values) > 1 else ""
        tie = " ≈" if means[name] - min(means.values()) < TIE else ""
        found.append(
            [
                f"`{first['walk']}`" + (" branches x1.7" if "branch-scale" in given else ""),
                first["optimizer"],
                f"{first['lr']:g}",
                str(len(values)),
                f"{means[name]:.4f}{spread}{tie}",
                f"{means[name] - plain:+.4f}",
                str(cost.layers),
                f"{cost.layer_runs_per_token:.3g}",
                f"{cost.total.backward_bytes / 1e6:.0f}",
                f"{cost.total.train_flops_per_token / 1e6:.1f}",
                f"{statistics.mean(r.get('seconds', r.get('training_s', 0)) for r in models[name]):.0f}",
                f"{alone.get((first['walk'], first['optimizer']), '')}",
                first["commit"],
            ]
        )
    return found, max(r.get("beside", 0) for r in records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("boards", type=Path)
    args = parser.parse_args()
    print(PAGE.format(tie=TIE), end="")
    for board in yaml.safe_load(args.boards.read_text())["boards"]:
        found, beside = rows(board, args.boards.parent)
        machine = json.loads((args.boards.parent / board["ledger"]).read_text().splitlines()[0])["machine"]
        print(f"\n## {board['title']}\n\n{board['budget']}. On {machine}, {beside + 1} models at once.\n")
        print("| " + " | ".join(HEADS) + " |\n" + "|---" * len(HEADS) + "|")
        for cells in found:
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    sys.exit(main())
