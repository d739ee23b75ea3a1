"""Kill a real training run again and again, resume it each time, and compare the end with an undisturbed run.

    python tools/crash/kill.py --kills 60 --while-saving 24

Each session of the run is ended by SIGKILL, at one of three kinds of moment: while it starts (one in six), at any time
of its training, or a few milliseconds after the folder ``.saving`` has appeared, in which a checkpoint is written.
Whether a kill hit a save is not taken from that intention: it counts as one if the half-written checkpoint is there
after the process has gone, and was not there before it. After each kill the newest whole checkpoint is found by its
checksums, and the next session must say that it resumes from that very one. Times of starting and training are drawn in
seconds of the processor, so that a busy machine changes nothing.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from runs import differences, finish, log, newest_whole, start, train_words

START_SECONDS = 5.0
SAVE_SECONDS = 0.1  # a kill that waits for a save comes within so much of its beginning, sooner rather than later
RESUMED = re.compile(r"resuming from \S+checkpoint-(\d+):")
FRESH = "has no checkpoint yet"


@dataclass
class Tally:
    """What has happened so far.

    Attributes:
        lost: steps by which resuming fell short of the newest whole checkpoint, all sessions together.
        repeated: steps of the log that were behind it, and so were done again.
    """

    kills: int = 0
    while_saving: int = 0
    removing: int = 0
    lost: int = 0
    repeated: int = 0
    resumed: int = 0
    errors: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, metavar="N", help="at least (default: 60)")
    parser.add_argument("--while-saving", type=int, default=24, metavar="N", help="so many at least hit a save")
    parser.add_argument("--steps", type=int, default=900, metavar="N", help="of the run (default: 900)")
    parser.add_argument(
        "--session", type=float, default=1.2, metavar="SECONDS", help="the longest training until a kill"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return test(args, Path(folder))


def test(args: argparse.Namespace, folder: Path) -> int:
    run, undisturbed, cache = folder / "run", folder / "undisturbed", folder / "cache"
    began = time.monotonic()
    finish(train_words(undisturbed, steps=args.steps), cache=cache)
    print(f"undisturbed: {args.steps} steps in {time.monotonic() - began:.0f} s", flush=True)

    draw, tally = random.Random(args.seed), Tally()
    words, expected = train_words(run, steps=args.steps), None
    while tally.kills < args.kills or tally.while_saving < args.while_saving:
        saves_wanted = args.while_saving - tally.while_saving
        wait_for_save = draw.random() < saves_wanted / max(1, args.kills - tally.kills)
        before = stamp(run / ".saving")
        process = start(words, cache=cache)
        seconds, errors = kill(process, run, draw, args.session, wait_for_save)
        note_resumption(errors, expected, tally)
        if process.returncode == 0:
            raise SystemExit(f"the run ended after {tally.kills} kills; give it more --steps")
        if process.returncode != -signal.SIGKILL:
            tally.errors.append(f"a session ended with {process.returncode}: {errors.strip()[-300:]}")
            break
        tally.kills += 1
        note_kill(run, seconds, tally, saving=stamp(run / ".saving") != before)
        if (run / "foveate.yaml").exists():
            words, expected = ["train", "--resume", str(run)], newest_whole(run)

    last = finish(words, cache=cache)
    note_resumption(last, expected, tally)
    return conclude(run, undisturbed, tally, time.monotonic() - began)


def stamp(path: Path) -> int | None:
    """Tells one file or folder from another that comes to the same name; None where there is none."""
    try:
        return path.stat().st_ino + path.stat().st_ctime_ns
    except FileNotFoundError:
        return None


def kill(
    process: subprocess.Popen[str], run: Path, draw: random.Random, longest: float, wait_for_save: bool
) -> tuple[float, str]:
    """End the process by SIGKILL at a random moment; after how many seconds, and what it had written until then."""
    began = time.monotonic()
    output: list[str] = []
    reader = threading.Thread(target=lambda: output.append(process.communicate()[1]))
    reader.start()  # a full pipe would hold the process

    def wait_for_new(path: Path) -> None:
        before = stamp(path)
        while process.poll() is None and stamp(path) in (None, before):
            time.sleep(0.001)

    def compute_for(seconds: float) -> None:
        end = processor_seconds(process) + seconds
        while process.poll() is None and processor_seconds(process) < end:
            time.sleep(0.001)

    if wait_for_save:
        wait_for_new(run / "foveate.yaml")  # which is written just before the first step
        for _ in range(draw.randint(1, 3)):
            wait_for_new(run / ".saving")
        time.sleep(draw.random() ** 2 * SAVE_SECONDS)
    elif draw.random() < 1 / 6:
        compute_for(draw.uniform(0, START_SECONDS))
    else:
        wait_for_new(run / "foveate.yaml")
        compute_for(draw.uniform(0, longest))
    process.kill()
    reader.join()
    return time.monotonic() - began, output[0]


def processor_seconds(process: subprocess.Popen[str]) -> float:
    try:
        used = psutil.Process(process.pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return used.user + used.system


def note_kill(run: Path, seconds: float, tally: Tally, *, saving: bool) -> None:
    """Write down what a kill has left."""
    whole = newest_whole(run)
    left = [path.name for path in (run / ".saving").glob("*")] if saving else []
    what = "outside saving"
    if left:
        if int(left[0].removeprefix("checkpoint-")) > whole:
            tally.while_saving += 1
            files = len(list((run / ".saving" / left[0]).iterdir()))
            what = f"while writing {left[0]}, {files} of its files begun"
        else:
            tally.removing += 1
            what = f"while removing {left[0]}"
    done = max((record["step"] for record in log(run)), default=0)
    tally.repeated += max(0, done - whole)
    print(f"kill {tally.kills}: after {seconds:.2f} s, {what}; newest whole checkpoint: {whole}", flush=True)


def note_resumption(errors: str, expected: int | None, tally: Tally) -> None:
    """Hold what a session has said it resumes from against what it should."""
    if expected is None:
        return
    if "Traceback" in errors or "internal error" in errors:
        tally.errors.append(errors.strip()[-300:])
    found = RESUMED.search(errors)
    if found is None and FRESH not in errors:  # killed before it came to that
        return
    tally.resumed += 1
    tally.lost += expected - (int(found[1]) if found else 0)


def conclude(run: Path, undisturbed: Path, tally: Tally, seconds: float) -> int:
    unequal = differences(run, undisturbed)
    print(
        f"{tally.kills} kills in {seconds:.0f} s, {tally.while_saving} of them while a checkpoint was being written, "
        f"{tally.removing} while one was being removed\n"
        f"{tally.resumed} sessions came to resuming; steps lost beyond the newest whole checkpoint: {tally.lost}; "
        f"steps since it that were logged, and done again: {tally.repeated}\n"
        f"weights, optimizer, random states and metrics against the undisturbed run: "
        f"{', '.join(unequal) + ' DIFFER' if unequal else 'equal, bit for bit'}"
    )
    for error in tally.errors:
        print(f"unexpected: {error}")
    return 1 if unequal or tally.errors or tally.lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
