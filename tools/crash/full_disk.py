"""Fill a small file system while a checkpoint is being written: the run must stop in one line and lose nothing.

    python tools/crash/full_disk.py      # needs the right to mount a tmpfs

A run of some 9 MB a checkpoint, of which four are to be kept, goes to a tmpfs of 40 MB, several times, with more and
more of it taken beforehand: so it fills while different files are written. Each time the earlier checkpoint must load,
and once there is room the run must go on and end as the undisturbed one did, bit for bit.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runs import differences, finish, newest_whole, start, train_words

from foveate import load

SIZE = "40m"
NOT_POSSIBLE = 77  # the exit code by which test programs say that they could not run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taken", type=int, nargs="+", default=[0, 2, 4, 6, 8], metavar="MB", help="beforehand")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return test(Path(folder), args.taken)


def test(folder: Path, taken: list[int]) -> int:
    undisturbed, small, cache = folder / "undisturbed", folder / "small", folder / "cache"
    small.mkdir()
    try:
        with tmpfs(small):
            pass
    except subprocess.CalledProcessError as error:
        print(f"cannot mount a tmpfs: {error.stderr.strip()}")
        return NOT_POSSIBLE
    finish(words(undisturbed), cache=cache)
    size = sum(path.stat().st_size for path in (undisturbed / "checkpoint-12").iterdir())
    print(f"a checkpoint has {size / 1e6:.1f} MB, the file system {SIZE}", flush=True)
    failures = 0
    for megabytes in taken:
        with tmpfs(small):
            (small / "taken").write_bytes(bytes(megabytes << 20))
            problems = fill(small / "run", undisturbed, cache, megabytes)
        failures += bool(problems)
        print(
            f"{megabytes} MB taken: {'; '.join(problems) or 'stopped, loaded, resumed, equal bit for bit'}", flush=True
        )
    return 1 if failures else 0


def words(run: Path) -> list[str]:
    return train_words(run, steps=12, hidden=120, save_every=2, keep=4)


def fill(run: Path, undisturbed: Path, cache: Path, megabytes: int) -> list[str]:
    process = start(words(run), cache=cache)
    _, errors = process.communicate()
    last = errors.strip().splitlines()[-1]
    print(f"{megabytes} MB taken: exit code {process.returncode}, {last.replace(str(run.parent), '.')}", flush=True)
    problems = []
    if process.returncode != 2 or "no space left" not in last or "Traceback" in errors:
        problems.append("did not stop in one line")
    if (run / ".saving").exists():
        problems.append("left half a checkpoint")
    if newest_whole(run) == 0:
        return [*problems, "no checkpoint is whole"]
    load(run, device="cpu")
    subprocess.run(["mount", "-o", "remount,size=400m", run.parent], check=True)
    finish(["train", "--resume", str(run)], cache=cache)
    return problems + [f"{name} differs" for name in differences(run, undisturbed)]


@contextmanager
def tmpfs(folder: Path) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


if __name__ == "__main__":
    raise SystemExit(main())
