"""Probe how far back word order matters to every model of a plan, and print the table of horizons.

    python experiments/horizons.py experiments/horizons.yaml --out runs/horizons --data DIR --model NAME=PATH ...

A probe that is done is not done again, one that was interrupted goes on. Models without a path are left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml


def write_stories(path: Path, model_path: str, count: int, tokens: int) -> None:
    """Texts that a model samples itself, from the mark that begins one to the next, as JSON lines."""
    import torch

    from foveate import load

    model, tokenizer = load(model_path)
    torch.manual_seed(0)
    mark = tokenizer.bos_token_id
    texts: list[str] = []
    while len(texts) < count:
        start = torch.full((50, 1), mark)
        rows = model.generate(
            start,
            attention_mask=torch.ones_like(start),
            max_new_tokens=tokens,
            do_sample=True,
            top_k=0,
            eos_token_id=mark,  # the next story would begin
            pad_token_id=tokenizer.eos_token_id,
        )
        texts += [tokenizer.decode(row[1:], skip_special_tokens=True) for row in rows]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:count]), encoding="utf-8")


def probe(settings: dict[str, Any], model: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """The records of one probe, computed if they are not there."""
    if not (folder / "results.jsonl").exists():
        words = []
        for name, value in settings.items():
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
        command = [sys.executable, "-m", "foveate", "probe", "shuffle", model, *words, "--seed", str(seed)]
        subprocess.run([*command, "--out", str(folder)], check=True, stdout=sys.stderr)
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def text_of(summary: dict[str, Any], which: str) -> str:
    tokens, (low, high) = summary[f"{which}_horizon"], summary[f"{which}_horizon_ci"]
    farthest = summary["context"] - summary["boundary"]

    def shown(number: int) -> str:
        return f"≥ {number}" if number == farthest else str(number)

    return f"{shown(tokens)} [{shown(low)}, {shown(high)}]"


def summary_of(records: list[dict[str, Any]]) -> dict[str, Any]:
    return next(record for record in records if record["kind"] == "summary")


def row(name: str, seed: int, records: list[dict[str, Any]]) -> str:
    summary = summary_of(records)
    low, high = summary["order_horizon_ci"]
    fifty = "yes" if low <= 50 <= high else "no, fewer" if high < 50 else "no, more"
    share, (share_low, share_high) = summary["order_share"], summary["order_share_ci"]
    cells = [
        name,
        str(seed),
        f"{summary['sequences']} × {summary['permutations']}",
        text_of(summary, "order"),
        text_of(summary, "topic"),
        f"{share:.2f} [{share_low:.2f}, {share_high:.2f}]",
        fifty,
    ]
    return f"| {' | '.join(cells)} |"


def draw(summaries: dict[str, dict[str, Any]], out: Path) -> None:
    """Both horizons of every probe with their intervals, beside a line at 50 tokens."""
    import matplotlib

    from foveate.report.figures import COLOURS, INK, STYLE, WIDTH, as_png, as_svg, new_figure

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = new_figure(WIDTH, 0.9 + 0.42 * len(summaries))
        ax = figure.subplots()
        for row, summary in enumerate(summaries.values()):
            for which, tint, shift in (("order", COLOURS[1], -0.13), ("topic", COLOURS[2], 0.13)):
                low, high = (max(tokens, 1) for tokens in summary[f"{which}_horizon_ci"])
                ax.plot([low, high], [row + shift] * 2, color=tint, lw=2.5, alpha=0.5)
                ax.plot(max(summary[f"{which}_horizon"], 1), row + shift, "o", color=tint, ms=6)
            ax.plot([summary["context"] - summary["boundary"]] * 2, [row - 0.3, row + 0.3], color=INK, lw=1)
        ax.axvline(50, color=INK, lw=0.8, ls=(0, (3, 3)))
        ax.set(xscale="log", ylim=(len(summaries) - 0.5, -0.6), xlabel="tokens (| is as far as was measured)")
        ax.set_title("order horizon", color=COLOURS[1])
        ax.set_title("topic horizon", color=COLOURS[2], loc="center")
        ax.set_yticks(range(len(summaries)), list(summaries))
        ax.set_xticks([8, 16, 32, 50, 128, 256, 512], ["8", "16", "32", "50", "128", "256", "512"])
        ax.minorticks_off()
        ax.tick_params(axis="y", length=0)
        (out / "horizons.svg").write_text(as_svg(figure), encoding="utf-8")
        (out / "horizons.png").write_bytes(as_png(figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--data", type=Path, default=Path(), help="folder that the data paths of the plan are relative to"
    )
    parser.add_argument("--model", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--table", action="store_true", help="compute nothing, print what is there")
    parser.add_argument("--only", nargs="*", default=[], help="names of probes; default: all")
    args = parser.parse_args()
    plan = yaml.safe_load(args.plan.read_text())
    models = dict(given.split("=", 1) for given in args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    rows, summaries = [], {}
    for settings in plan["probes"]:
        name, model, seeds = (settings.pop(key) for key in ("name", "model", "seeds"))
        if model not in models or (args.only and name not in args.only):
            continue
        if settings["data"] == "stories":
            settings["data"] = args.out / "stories.jsonl"
            if not settings["data"].exists() and not args.table:
                stories = plan["stories"]
                write_stories(settings["data"], models[stories["model"]], stories["count"], stories["tokens"])
        else:
            settings["data"] = args.data / settings["data"]
        for seed in seeds:
            if args.table and not (args.out / f"{name}-{seed}" / "results.jsonl").exists():
                continue
            records = probe(settings, models[model], seed, args.out / f"{name}-{seed}")
            rows.append(row(name, seed, records))
            summaries[f"{name}, seed {seed}" if seed else name] = summary_of(records)
    print("| probe | seed | sequences × permutations | order horizon | topic horizon | order share | 50? |")
    print("|---|---|---|---|---|---|---|", *rows, sep="\n")
    draw(summaries, args.out)


if __name__ == "__main__":
    main()
