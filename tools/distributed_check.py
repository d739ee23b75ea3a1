"""Train the same small model on one process and on two, and print how far their losses are from each other.

    python tools/distributed_check.py [--folder DIR]

One process, two with DDP (under torchrun and under accelerate launch), two with FSDP2; then of each two one is killed
by SIGKILL, and the run goes on in one process; then a run of one goes on in two. Exits with 1 if any loss differs by
more than 1e-5. Takes about three minutes on two quiet cores; runs that DIR holds already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOLERANCE = 1e-5
STEPS, BATCH, CONTEXT = 40, 8, 65
TRAIN = [
    *("foveate", "train", "--walk", "1@1 2@4 1@16 1@1", "--hidden", "64", "--heads", "2", "--data", "books"),
    *(
        "--tokenizer",
        "bytes",
        "--context",
        str(CONTEXT),
        "--batch",
        str(BATCH),
        "--tokens",
        str(STEPS * BATCH * CONTEXT),
    ),
    *("--dtype", "fp32", "--device", "cpu", "--log-every", "1", "--save-every", "10", "--eval-every", "20"),
    *("--eval-tokens", "4000"),
]
ALONE = [sys.executable, "-m"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
ACCELERATE = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "-m"),
]


def start(launcher: list[str], out: Path, *more: str) -> subprocess.Popen[str]:
    words = [*launcher, *TRAIN, "--out", str(out), *more]
    with out.with_suffix(".log").open("a") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, text=True, start_new_session=True)


def run(launcher: list[str], out: Path, *more: str) -> Path:
    if not is_finished(out) and (code := start(launcher, out, *more).wait()):
        sys.exit(f"{out.name} ended with {code}: see {out.with_suffix('.log')}")
    return out


def resume(launcher: list[str], out: Path, *more: str) -> Path:
    if is_finished(out):
        return out
    with out.with_suffix(".log").open("a") as log:
        words = [*launcher, "foveate", "train", "--resume", str(out), *more]
        subprocess.run(words, stdout=log, stderr=log, check=True)
    return out


def kill_one(out: Path, parallel: str) -> str:
    """Start two processes, and kill the second one some steps after their first checkpoint; what the first says."""
    if not is_finished(out):
        process = start(TORCHRUN, out, "--parallel", parallel)
        wait_for_steps(out)
        os.kill(children(process.pid)[1], signal.SIGKILL)
        process.wait()
    lines = out.with_suffix(".log").read_text().splitlines()
    return next((line for line in lines if line.startswith("foveate: ")), "nothing")


def is_finished(out: Path) -> bool:
    return (out / "manifest.json").exists()


def wait_for_steps(out: Path) -> None:
    while len(losses(out)) < 15:
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def losses(out: Path) -> dict[int, float]:
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return {record["step"]: record["loss"] for record in records if record["kind"] == "train"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the runs are kept (default: a temporary folder)")
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="distributed-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    one = run(ALONE, folder / "one")
    runs = {
        "ddp": run(TORCHRUN, folder / "ddp", "--parallel", "ddp"),
        "accelerate": run(ACCELERATE, folder / "accelerate", "--parallel", "ddp"),
        "fsdp2": run(TORCHRUN, folder / "fsdp2", "--parallel", "fsdp"),
    }
    for parallel in ("ddp", "fsdp"):
        out = folder / f"{parallel}-killed"
        print(f"two processes, {parallel}, one killed: {kill_one(out, parallel)!r}")
        runs[f"{parallel}, killed, 1"] = resume(ALONE, out)
    back = folder / "one-then-two"
    if not is_finished(back):
        process = start(ALONE, back)
        wait_for_steps(back)
        process.send_signal(signal.SIGTERM)
        process.wait()
    runs["1, then fsdp2"] = resume(TORCHRUN, back, "--parallel", "fsdp")

    expected = losses(one)
    found = {name: losses(out) for name, out in runs.items()}
    print(f"\nloss of each step on one process, and how far that of two is from it\n\n{'step':>4}  {'one':>9}", end="")
    print("".join(f"  {name:>15}" for name in found))
    for step, loss in expected.items():
        if step <= 3 or step % 5 == 0:
            print(f"{step:>4}  {loss:>9.6f}" + "".join(f"  {their[step] - loss:>15.1e}" for their in found.values()))
    worst = {name: max(abs(their[step] - loss) for step, loss in expected.items()) for name, their in found.items()}
    print(f"{'most':>4}  {'':>9}" + "".join(f"  {difference:>15.1e}" for difference in worst.values()))
    whole = all(list(their) == list(expected) for their in found.values())
    good = whole and max(worst.values()) <= TOLERANCE
    print(
        f"\n{len(expected)} steps in each, none missing or twice: {whole}; within {TOLERANCE:g}: {good}; runs: {folder}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
