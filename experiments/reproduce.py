"""Run every experiment behind docs/results.md, one after the other, and gather their tables in one page.

    python experiments/reproduce.py --data FOLDER --out runs [--only depth rare ...] [--list]

Each step is a command that can be run alone and goes on where it was stopped; ``OUT/results.md`` has what each printed,
with its command, the machine and the commit. FOLDER holds books-train-0.jsonl.xz, books-valid.jsonl.xz and
enwik8.xz; without it models train on the bundled books, and steps that need more are left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from run import commit

HERE = Path(__file__).parent
GRIDS = ("start", "rates", "muon", "depth", "families", "equal_time", "choices", "retina")  # of run.py, on books
ON_GPU = ("long",)  # weeks without one


def steps(data: Path | None, out: Path) -> dict[str, list[list[str]]]:
    """Commands by the name of what they measure."""
    python = sys.executable
    folder = [] if data is None else ["--data", str(data)]

    def program(name: str, *words: object) -> list[str]:
        return [python, str(HERE / f"{name}.py"), *map(str, words)]

    found = {name: [program("run", HERE / f"{name}.yaml", "--out", out / name, *folder)] for name in GRIDS}
    found["demo"] = [program("run", HERE / "demo.yaml", "--out", out / "demo")]  # always on the bundled books
    found["pareto"] = [
        program("pareto", HERE / "families.yaml", "--runs", out / "families", "--out", out / "pareto", "--hidden", 256)
    ]
    found["speed"] = [program("speed", HERE / "speed.yaml", "--out", out / "speed")]
    ledgers = [HERE / "ledgers" / f"{name}.jsonl" for name in ("long_rates", "long_muon")]  # of runs on a GPU
    found["lead"] = [program("lead", *ledgers, "--out", out / "lead")]
    found["leaderboard"] = [program("leaderboard", HERE / "leaderboard.yaml")]
    found["scale"] = [program("scale", HERE / "ledgers" / "long_steps.jsonl")]
    if data is None:
        return found
    train, valid = data / "books-train-0.jsonl.xz", data / "books-valid.jsonl.xz"
    probe = [python, "-m", "foveate", "probe", "rare", "--train", train, "--data", valid, "--bytes", "1M"]
    found["rare"] = []
    for seed in (0, 1, 2):
        pair = [out / f"depth/2M-plain-{seed}", out / f"depth/2M-late30-{seed}"]
        found["rare"].append([*map(str, (*probe, *pair, "--out", out / f"rare/{seed}"))])
    pair = [out / "depth/2M-plain-4", out / "depth/2M-late30_as_good-0"]  # at equal bits per byte
    found["rare"].append([*map(str, (*probe, *pair, "--out", out / "rare/as-good"))])
    pair = [out / "muon/lr-0.008-plain-0", out / "muon/lr-0.008-late30-0"]
    found["rare"].append([*map(str, (*probe[:-1], "500k", *pair, "--out", out / "rare/muon"))])
    runs = {"bytes-full": "retina/bytes-full-0", "bytes-retina": "retina/bytes-retina-0"}
    runs |= {"bpe-full": "retina/bpe-full-0", "bpe-retina": "retina/bpe-retina-0"}
    runs |= {"plain-1M": "rates/lr-0.008-plain-0", "late30-1M": "rates/lr-0.004-late30-0"}
    runs |= {f"{name}-2M": f"depth/2M-{name}-0" for name in ("plain", "deep26", "late30")}
    runs |= {f"{name}-2M-seed{seed}": f"depth/2M-{name}-{seed}" for name in ("plain", "late30") for seed in (1, 2)}
    runs |= {"plain-3M": "depth/2M-plain_longer-0", "late30-3M": "depth/2M-late30_as_long-0"}
    models = [word for name, run in runs.items() for word in ("--model", f"{name}={out / run}")]
    found["horizons"] = [program("horizons", HERE / "horizons.yaml", "--out", out / "horizons", *folder, *models)]
    pack = out / "pack"
    found["long"] = [program("long_data", "--data", data, "--out", pack)]
    found["long"] += [
        program("long", HERE / "long_screen.yaml", "--pack", pack, "--out", out / "steps_512", "--smoke"),
        program("long", HERE / "long_8k.yaml", "--pack", pack, "--out", out / "steps_8k", "--smoke", 15),
    ]
    rates = out / "long_rates"
    for name, workers in (("rates", 11), ("muon", 2), ("screen", 12), ("40M", 4), ("8k", 1)):
        words = [HERE / f"long_{name}.yaml", "--pack", pack, "--out", out / f"long_{name}", "--workers", workers]
        found["long"].append(program("long", *words, *(["--rates", rates] if name in ("screen", "40M", "8k") else [])))
    pair = ["--models", "10M-plain-0", "10M-fine9-0"]
    found["long"].append(program("long_losses", "--pack", pack, "--runs", out / "long_muon", *pair))
    if (data / "enwik8.xz").exists():
        split = out / "enwik8"
        found["hourglass"] = [
            program("enwik8", data / "enwik8.xz", "--out", split),
            *(
                program("run", HERE / f"{name}.yaml", "--out", out / name, "--data", split)
                for name in ("hourglass_rates", "hourglass")
            ),
        ]
    return found


def machine() -> str:
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit() or 'unknown'}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the corpora")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--only", nargs="*", default=[], metavar="STEP", help="steps to run; default: all")
    parser.add_argument("--list", action="store_true", help="print the commands and run none")
    args = parser.parse_args()
    found = steps(args.data, args.out)
    if unknown := set(args.only) - set(found):
        parser.error(f"no step {', '.join(sorted(unknown))}; choose of {', '.join(found)}")
    if args.data is not None and not args.data.is_dir():
        parser.error(f"--data: {args.data} is no folder")
    pages = args.out / "steps"  # of each step what it printed last, also when others run alone
    pages.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, commands in found.items():
        if args.only and name not in args.only:
            continue
        if name in ON_GPU and not args.list and name not in args.only and shutil.which("nvidia-smi") is None:
            print(f"{name}: left out, there is no NVIDIA GPU here; --only {name} runs it all the same", flush=True)
            continue
        page = f"## {name}\n\n{machine()}\n"
        for command in commands:
            shown = shlex.join(["python", *(word.replace(f"{HERE.parent}/", "") for word in command[1:])])
            print(f"$ {shown}", flush=True)
            if args.list:
                continue
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            print(done.stdout, flush=True)
            end = f"\nended with {done.returncode}\n" if done.returncode else ""
            failed += [name] if done.returncode else []
            page += f"\n```sh\n{shown}\n```\n\n{done.stdout}{end}"
            (pages / f"{name}.md").write_text(page)
        done_steps = [step for step in found if (pages / f"{step}.md").exists()]
        text = "\n".join((pages / f"{step}.md").read_text() for step in done_steps)
        (args.out / "results.md").write_text(f"# Results\n\n{text}")
    if failed:
        sys.exit(f"failed: {', '.join(dict.fromkeys(failed))}; what was done stays, and the command goes on from there")


if __name__ == "__main__":
    main()
