"""Fuzz what Foveate reads: walks, configurations, text files, checkpoints, the inputs of probes.

For example: python tools/fuzz.py --target walk --cases 100000

Exits 0 if every case was accepted or refused in one line, 1 with the first that was not.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[0] = str(Path(__file__).parent.parent / "tests")  # in place of this folder

from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402

from fuzz.targets import TARGETS  # noqa: E402

AT_ONCE = 500  # cases hypothesis remembers, so as not to try them again
LIMITS = settings(
    max_examples=AT_ONCE,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # a smaller case would have other variations
    suppress_health_check=list(HealthCheck),
)


def fuzz(name: str, cases: int, first_seed: int, folder: Path) -> None:
    target = TARGETS[name](folder)
    done = accepted = 0

    def one(case: object) -> None:
        nonlocal done, accepted
        results = target.check_variants(case)
        done += len(results)
        accepted += sum(results)

    began, began_working = time.monotonic(), time.process_time()
    turn = first_seed
    while done < cases:
        seed(turn)(LIMITS(given(target.cases)(one)))()
        turn += 1
        print(f"{name}: {done:,} cases", end="\r", file=sys.stderr, flush=True)
    took, worked = time.monotonic() - began, time.process_time() - began_working
    print(
        f"{name}: {done:,} cases, {accepted:,} accepted, {done - accepted:,} refused in one line, "
        f"0 unexpected exceptions, {1000 * worked / done:.2f} ms of processor time a case ({took:.0f} s in all)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=sorted(TARGETS), required=True)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", type=float, default=8, metavar="GIB", help="address space allowed (default: 8)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (int(args.memory * 2**30),) * 2)
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=fast) as folder:
        fuzz(args.target, args.cases, args.seed, Path(folder))


if __name__ == "__main__":
    main()
