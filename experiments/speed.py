"""Run every bench of a plan, one after the other, and say which claims hold.

    python experiments/speed.py experiments/speed.yaml --out runs/speed [--spacebyte CHECKOUT] [--only NAME ...]

The records of each bench are JSON lines in ``OUT/NAME.jsonl``, its table is in ``OUT/NAME.txt``. A bench that has been
run is not run again: delete its records to repeat it. Ends with a table of all claims. A peer that is not installed
ends only its own bench.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from foveate.report.bench_tables import decode_table, memory_table, profile_table, train_table

TABLES = {"decode": decode_table, "memory": memory_table, "train": train_table}
TABLE_WIDTH = 200


def run(name: str, words: list[str], out: Path) -> list[dict[str, Any]]:
    """The records of a bench, as far as it came."""
    file = out / f"{name}.jsonl"
    if not file.exists():
        print(f"\n$ foveate bench {shlex.join(words)}", flush=True)
        start = time.perf_counter()
        command = [sys.executable, "-m", "foveate", "bench", *words, "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"{name}: ended with {done.returncode} and {done.stdout.count(chr(10))} records")
            return [json.loads(line) for line in done.stdout.splitlines()]
        file.write_text(done.stdout)
        print(f"took {time.perf_counter() - start:.0f} s")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    with (out / f"{name}.txt").open("w") as text:
        for console in (Console(width=TABLE_WIDTH), Console(width=TABLE_WIDTH, file=text)):
            console.print(TABLES[words[0]](records))
            for record in records:
                if record.get("profile"):
                    console.print(profile_table(record))
    return records


def value(record: dict[str, Any], key: str) -> Any:
    """Of a key, or of keys within keys, ``a.b``."""
    found: Any = record
    for part in key.split("."):
        found = (found or {}).get(part)
    return found


def judge(check: dict[str, Any], records: list[dict[str, Any]], walks: dict[str, str]) -> list[str]:
    """A line for each record that a check is about."""
    where = {key: walks.get(wanted, wanted) for key, wanted in check["where"].items()}
    found = [r for r in records if all(r[key] == wanted for key, wanted in where.items())]
    verdicts = []
    for record in found:
        got = value(record, check["key"])
        held = got is not None and check.get("at_least", got) <= got <= check.get("at_most", got)
        limit = f"≤ {check['at_most']}" if "at_most" in check else f"≥ {check['at_least']}"
        setting = f"{record['name']}, context {record['context']}, batch {record['batch']}, {record['dtype']}"
        shown = "not measured" if got is None else f"{got:.3f}"
        low, high = record.get(f"{check['key']}_low"), record.get(f"{check['key']}_high")
        spread = f" ({low:.3f}–{high:.3f})" if low is not None and high is not None else ""
        verdicts.append(
            f"{'yes' if held else 'NO ':3}  {check['key']} {shown}{spread} {limit}: {check['means']}; {setting}"
        )
    return verdicts or [f"NO   {check['key']}: not measured for {where}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--spacebyte", metavar="DIR", help="a checkout of github.com/kjslag/spacebyte")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="benches to run; default: all")
    args = parser.parse_args()
    plan = yaml.safe_load(args.plan.read_text())
    args.out.mkdir(parents=True, exist_ok=True)
    quoted = {name: shlex.quote(walk) for name, walk in plan["walks"].items()}
    verdicts = []
    for name, bench in plan["benches"].items():
        if args.only and name not in args.only:
            continue
        words = shlex.split(bench["command"].format(**quoted, out=shlex.quote(str(args.out))))
        if bench.get("needs") == "spacebyte":
            if not args.spacebyte:
                verdicts.append(f"\n{name}: left out, --spacebyte names no checkout")
                continue
            words += ["--peer-path", args.spacebyte]
        records = run(name, words, args.out)
        verdicts.append(f"\n{name}: {bench['claim']}")
        verdicts += [line for check in bench["checks"] for line in judge(check, records, plan["walks"])]
    print("\n".join(verdicts))
    (args.out / "claims.txt").write_text("\n".join(verdicts) + "\n")


if __name__ == "__main__":
    main()
