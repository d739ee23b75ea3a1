"""Conversions of a pretrained Llama healed by its own predictions, beside the same walks begun anew.

    python experiments/heal.py run TEACHER --out runs/heal --tokens 8M [--only a-healed a-anew] [--device cuda]
    python experiments/heal.py show runs/heal [--plot docs/figures/heal.svg]

``run`` has the teacher write text (and more of it, to score on), converts the teacher along the walks of ``RUNS``,
trains each run and scores it. What is there is not made again; what was interrupted goes on. ``show`` prints the table
and draws loss against tokens; it takes ``run``'s folder, or a ledger that ``show --ledger`` made of one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from foveate.report.figures import COLOURS, INK, WIDTH, drawn, new_figure

Record = dict[str, Any]
# walks of six layers: about 1.9, 1.9 and 1.4 times as fast as 6@1 in decoding, with two full layers, with a fovea
WALKS = {
    "a": "0@1 5@8 1@1",
    "c": "1@1 5@8 0@1",
    "b": "1@1 4@4 1@1",
    "local": "2@1:window32 1@1 1@1:window32 1@1 1@1:window32",
    "fovea": "6@1:fovea16",
}
RUNS: dict[str, Record] = {  # healed: begun from the conversion and taught; taught, anew: begun anew
    "a-healed": {"lr": 0.004},
    "a-healed-slow": {"lr": 0.001},
    "a-taught": {"lr": 0.008},
    "a-anew": {"lr": 0.008},
    "c-healed": {"lr": 0.004},
    "b-healed": {"lr": 0.002},
    "b-taught": {"lr": 0.008},
    "b-anew": {"lr": 0.008},
    "local-healed": {"lr": 0.001},
    "fovea-healed": {"lr": 0.001},
}
STYLES = {"healed": "-", "taught": "--", "anew": ":"}


def foveate(*words: object) -> str:
    done = subprocess.run([sys.executable, "-m", "foveate", *map(str, words)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"foveate {words[0]} ended with {done.returncode}, see above; what was done stays")
    return done.stdout


def score(model: object, held: Path, device: str, to: Path) -> None:
    to.write_text(foveate("eval", model, "--data", held, "--context", 256, "--device", device, "--json"))


def train(name: str, teacher: str, args: argparse.Namespace) -> None:
    """One run of ``RUNS``, in a folder of its own, and its score beside it."""
    walk, kind = name.split("-")[0], name.split("-")[1]
    out: Path = args.out / name
    words: list[object] = ["--expanding", "linear"]
    if kind == "healed":
        start = args.out / f"{walk}-converted"
        if not start.exists():
            foveate("convert", teacher, "--walk", WALKS[walk], *words, "--out", start)
        words = ["--from", start]
    else:
        c = json.loads((args.out / "plain" / "config.json").read_text())
        words += ["--walk", WALKS[walk], "--hidden", c["hidden_size"], "--heads", c["num_attention_heads"]]
        words += ["--ff", c["intermediate_size"], "--tokenizer", args.out / "plain"]
    if kind != "anew":
        words += ["--teacher", args.out / "plain", "--distill", 0.9]
    words += ["--data", args.out / "samples.jsonl", "--valid-data", args.out / "held.jsonl", "--eval-tokens", "20k"]
    words += ["--eval-every", 40, "--context", 256, "--batch", args.batch, "--tokens", args.tokens, "--out", out]
    words += ["--optimizer", "muon", "--lr", RUNS[name]["lr"], "--seed", 0, "--device", args.device]
    foveate("train", *words, *(["--resume"] if (out / "foveate.yaml").exists() else []))
    score(out, args.out / "held.jsonl", args.device, args.out / f"{name}.eval.json")


def run(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    plain = args.out / "plain"
    if not plain.exists():
        foveate("convert", args.teacher, "--out", plain)
    for name, tokens, seed in (("samples", args.tokens, 1), ("held", "40k", 2)):
        words = ["--tokens", tokens, "--length", 255, "--seed", seed, "--device", args.device]
        foveate("write", plain, "--out", args.out / f"{name}.jsonl", *words)
    score(plain, args.out / "held.jsonl", args.device, args.out / "teacher.eval.json")
    for name in args.only or RUNS:
        if not (args.out / f"{name}.eval.json").exists():
            train(name, args.teacher, args)


def read(place: Path) -> list[Record]:
    """The teacher's score, then a record for each run; of a ledger as they stand there."""
    if place.is_file():
        return [json.loads(line) for line in place.read_text().splitlines()]
    records: list[Record] = [{"name": "teacher", **json.loads((place / "teacher.eval.json").read_text())}]
    for name in RUNS:
        # a run's folder, or what was taken out of it
        inside, taken = (
            [place / name / "metrics.jsonl", place / name / "foveate.yaml"],
            [place / f"{name}.metrics.jsonl", place / f"{name}.yaml"],
        )
        metrics, settings = inside if inside[0].exists() else taken
        if not metrics.exists():
            continue
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        curve = [[m["tokens"], round(m["nll_per_token"], 4)] for m in lines if m["kind"] == "valid"]
        asked = yaml.safe_load(settings.read_text())
        train_settings = asked.get("train", asked)
        end = place / f"{name}.eval.json"
        whole = json.loads(end.read_text())["nll_per_token"] if end.exists() and end.read_text().strip() else None
        walk = WALKS[name.split("-")[0]]
        records.append({"name": name, "walk": walk, "lr": train_settings["lr"], "curve": curve, "nll_per_token": whole})
    return records


def reaches(curve: list[list[float]], level: float) -> float | None:
    """After how many tokens a curve is at ``level`` or below, on the line between two marks."""
    if curve[0][1] <= level:
        return curve[0][0]
    for (t0, y0), (t1, y1) in pairwise(curve):
        if y1 <= level:
            return t0 + (t1 - t0) * (y0 - level) / (y0 - y1)
    return None


def print_table(records: list[Record]) -> None:
    teacher, runs = records[0], records[1:]
    print(f"teacher: {teacher['nll_per_token']:.4f} nats per token, {teacher['tokens']:,} tokens of its own text\n")
    print("| run | walk | rate | tokens | nats per token | over the teacher | anew's end reached after |")
    print("|---|---|---|---|---|---|---|")
    for r in runs:
        tokens, last = r["curve"][-1]
        end = r["nll_per_token"]
        shown = (
            f"{end:.4f} | {end - teacher['nll_per_token']:+.4f}" if end is not None else f"({last:.3f}, unfinished) |"
        )
        anew = next((o for o in runs if o["name"] == f"{r['name'].split('-')[0]}-anew"), None)
        at = None if anew is None or anew is r else reaches(r["curve"], anew["curve"][-1][1])
        part = "" if at is None or anew is None else f"{at / 1e6:.2f}M, {at / anew['curve'][-1][0]:.0%}"
        print(f"| {r['name']} | `{r['walk']}` | {r['lr']:g} | {tokens / 1e6:.2f}M | {shown} | {part} |")


def draw(records: list[Record], path: Path) -> None:
    def figure() -> Any:
        figure = new_figure(WIDTH, 3.4)
        ax = figure.subplots()
        walks = list(WALKS)
        for r in records[1:]:
            walk, kind = r["name"].split("-")[:2]
            tokens, loss = zip(*((t / 1e6, y) for t, y in r["curve"]), strict=True)
            tint = COLOURS[1 + walks.index(walk)]
            ax.plot(tokens, loss, STYLES[kind], color=tint, lw=1.4, label=f"{r['name']}, {r['lr']:g}")
        ax.axhline(records[0]["nll_per_token"], color=INK, lw=0.8)
        ax.annotate("the teacher", (0, records[0]["nll_per_token"]), xytext=(4, 3), textcoords="offset points")
        ax.set(ylim=(records[0]["nll_per_token"] - 0.15, 4.0), xlim=(0, None))
        ax.set(xlabel="million tokens", ylabel="nats per token, held out")
        ax.grid(axis="y", color=INK, alpha=0.13, lw=0.6)
        ax.legend(frameon=False, fontsize=8, ncols=2)
        return figure

    (plot,) = drawn("heal", "loss against tokens", figure)
    path.write_text(plot.svg, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    running = actions.add_parser("run", help="write, convert, train, score")
    running.add_argument("teacher", help="a Llama's folder")
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--tokens", default="8M", help="of each training, and of the text (default: 8M)")
    running.add_argument("--batch", default=24, type=int, help="sequences of 256 tokens (default: 24)")
    running.add_argument("--device", default="cpu")
    running.add_argument("--only", nargs="*", choices=RUNS, metavar="RUN", help=", ".join(RUNS))
    running.set_defaults(act=run)
    showing = actions.add_parser("show", help="table and figure")
    showing.add_argument("place", type=Path, help="the folder of run, or a ledger")
    showing.add_argument("--plot", type=Path, help="an .svg file")
    showing.add_argument("--ledger", type=Path, help="write what is shown as JSON lines")
    showing.set_defaults(act=show)
    args = parser.parse_args()
    args.act(args)


def show(args: argparse.Namespace) -> None:
    records = read(args.place)
    print_table(records)
    if args.ledger is not None:
        args.ledger.write_text("".join(json.dumps(record) + "\n" for record in records))
    if args.plot is not None:
        draw(records, args.plot)


if __name__ == "__main__":
    main()
