"""The lead of walks over their plain twins as training goes on: curves, a table, and a fit of where it goes.

    python experiments/lead.py experiments/ledgers/long_{rates,muon}.jsonl --out docs/figures

Takes ledgers of long.py. Every model is compared with the plain one of its ledger that learned at the same rate with
the same optimizer; the lead is plain's bits per byte less the model's, at equal tokens. Marks on the way lie inside a
cosine schedule: only the last one of each is a trained model. The fit is a line over the logarithm of the tokens from
1M on.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from foveate.report.figures import COLOURS, STYLE, WIDTH, as_svg, new_figure

Record = dict[str, Any]
FITTED_FROM = 990_000  # tokens; whole steps end a little before 1M


def recipe(record: Record) -> tuple[Any, ...]:
    return record["group"], record["optimizer"], record["lr"], record["seed"], record["context"]


def pairs(records: list[Record]) -> list[tuple[Record, Record]]:
    """Plain models as they are, each with every hierarchy that was trained alike."""
    plain = {
        recipe(r): r for r in records if "@1" in r["walk"] and " " not in r["walk"] and "branches" not in r["model"]
    }
    return [(plain[recipe(r)], r) for r in records if " " in r["walk"] and recipe(r) in plain]


def lead(plain: Record, other: Record) -> dict[int, float]:
    """Tokens, and how much better ``other`` is there, in bits per byte."""
    of_plain = {mark["tokens"]: mark["bpb"] for mark in plain["curve"]}
    return {m["tokens"]: of_plain[m["tokens"]] - m["bpb"] for m in other["curve"] if m["tokens"] in of_plain}


def slope(leads: dict[int, float]) -> float:
    """By how much the lead grows when tokens double, by least squares."""
    late = {tokens: by for tokens, by in leads.items() if tokens >= FITTED_FROM}
    return float(np.polyfit([math.log2(tokens) for tokens in late], list(late.values()), 1)[0])


def title(record: Record) -> str:
    return f"{record['model'].split('@')[0].removesuffix('-muon')}, {record['optimizer']} {record['lr']:g}"


def print_table(found: list[tuple[Record, Record]]) -> None:
    marks = [round(m * 1e6) for m in (0.25, 0.5, 1, 2, 3, 4, 6, 8, 10)]
    print("| walk | optimizer, rate | " + " | ".join(f"{mark / 1e6:g}M" for mark in marks) + " | per doubling |")
    print("|---" * (len(marks) + 3) + "|")
    for plain, other in found:
        leads = lead(plain, other)
        cells = []
        for mark in marks:
            near = [by for tokens, by in leads.items() if abs(tokens - mark) < 0.02 * mark]
            cells.append(f"{near[-1]:+.4f}" if near else "")
        print(
            f"| `{other['walk']}` | {other['optimizer']} {other['lr']:g} | "
            + " | ".join(cells)
            + f" | {slope(leads):+.4f} |"
        )


def draw(found: list[tuple[Record, Record]], path: Path) -> None:
    """A colour for every pair: its hierarchy a full line, its plain model a broken one."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(WIDTH, 5.4)
        by_tokens, by_flops, by_time, leads = figure.subplots(2, 2).flat
        for place, pair in enumerate(found):
            colour = COLOURS[place % len(COLOURS)]
            for record, style in zip(pair, ("--", "-"), strict=True):
                look: dict[str, Any] = {"color": colour, "linestyle": style, "linewidth": 1.1}
                tokens = np.array([mark["tokens"] for mark in record["curve"]])
                bpb = [mark["bpb"] for mark in record["curve"]]
                by_tokens.plot(tokens / 1e6, bpb, label=title(record) if record is pair[1] else None, **look)
                by_flops.plot(tokens * record["train_flops_per_token"] / 1e12, bpb, **look)
                if record["beside"] == 1:
                    by_time.plot([mark["seconds"] for mark in record["curve"]], bpb, **look)
            points = lead(*pair)
            leads.plot(np.array([*points]) / 1e6, [*points.values()], "o-", markersize=3, linewidth=1.1, color=colour)
        leads.axhline(0, color=COLOURS[0], linewidth=0.8)
        for ax, heading, scale in (
            (by_tokens, "bits per byte, million tokens", "log"),
            (by_flops, "bits per byte, TFLOPs of training", "log"),
            (by_time, "bits per byte, seconds of the 10M pair", "linear"),
            (leads, "lead over plain, million tokens", "log"),
        ):
            ax.set(xscale=scale, title=heading)
            if scale == "log":
                ax.xaxis.set_major_formatter("{x:g}")
                ax.xaxis.set_minor_formatter("")
        figure.legend(*by_tokens.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        path.write_text(as_svg(figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ledgers", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="folder of lead.svg")
    args = parser.parse_args()
    found = []
    for ledger in args.ledgers:
        found += pairs([json.loads(line) for line in ledger.read_text().splitlines()])
    if not found:
        parser.error("no hierarchy there has a plain twin trained alike")
    print_table(found)
    args.out.mkdir(parents=True, exist_ok=True)
    draw(found, args.out / "lead.svg")


if __name__ == "__main__":
    main()
