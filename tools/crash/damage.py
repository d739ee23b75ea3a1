"""Truncate, flip a bit of, and delete each file of a run's newest checkpoint in turn, and resume.

    python tools/crash/damage.py

Each damage is tried twice: with an older checkpoint beside, from which the run must go on and end as the undisturbed
one did, bit for bit; and alone, where it must be refused. Both times the line must name the file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from runs import differences, train_words

from foveate.cli import main as foveate
from foveate.loading.manifest import checkpoint_steps

STEPS = 20


def truncate(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])


def flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def delete(path: Path, draw: random.Random) -> None:
    path.unlink()


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (truncate, flip, delete)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="FILE", help="these files of the checkpoint (default: all)")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="so many places of each file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FOVEATE_CACHE"] = f"{folder}/cache"
        return test(Path(folder), args.only, args.repeat)


def test(folder: Path, only: list[str] | None, repeat: int) -> int:
    undisturbed, run = folder / "undisturbed", folder / "run"
    code, errors = quietly(train_words(undisturbed, steps=STEPS))
    assert code == 0, errors
    newest = f"checkpoint-{max(checkpoint_steps(undisturbed))}"
    names = only or sorted(path.name for path in (undisturbed / newest).iterdir())
    draw, failures, cases = random.Random(0), 0, 0
    for name in names:
        for damage in DAMAGES * repeat:
            for alone in (False, True):
                shutil.rmtree(run, ignore_errors=True)
                shutil.copytree(undisturbed, run)
                if alone:
                    for step in checkpoint_steps(run)[1:]:
                        shutil.rmtree(run / f"checkpoint-{step}")
                damage(run / newest / name, draw)
                code, errors = quietly(["train", "--resume", str(run)])
                line = next((line for line in errors.splitlines() if name in line), "")
                if alone:
                    passed = code == 2 and bool(line)
                else:
                    passed_over = line.startswith(f"passed over {newest}: {name} ")
                    passed = code == 0 and passed_over and not differences(run, undisturbed)
                cases, failures = cases + 1, failures + (not passed)
                what = "refused" if alone else "fell back"
                outcome = f"{what}: {line}" if passed else f"FAILED ({code}): {errors.strip()}"
                print(f"{damage.__name__} {name}, {outcome.replace(str(folder), '.')}", flush=True)
    print(f"{cases - failures} of {cases} damages fell back to the older checkpoint and ended equal, or were refused")
    return 1 if failures else 0


def quietly(words: list[str]) -> tuple[int, str]:
    """A command's exit code, and what it wrote on standard error."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        code = foveate(words)
    return code, errors.getvalue()


if __name__ == "__main__":
    raise SystemExit(main())
