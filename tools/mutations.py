"""Plant one small fault at a time and see whether a test notices: a test that cannot fail is worth nothing.

    python tools/mutations.py trace                     # which fast tests run which lines, once for each test file
    python tools/mutations.py run                       # every fault of the list not tried yet, then the sum
    python tools/mutations.py run --only probes bench   # of these folders
    python tools/mutations.py report                    # what has been found so far
    python tools/mutations.py make --each 30 --seed 1   # more faults, drawn from the syntax trees, on standard output

A line of the list is ``{"file", "old", "new"}``: text that stands once in a file of ``src/foveate``, and what takes its
place; ``explained`` says why no test can notice (nothing changes, or only how fast). Faults are planted in a copy, in
which the fast tests that run their lines do so, the quickest first, until one fails; then the other tests of the
folders that mirror theirs, and at last the slow ones, for a trace sees no subprocess and no compiled code. Only what
has passed all of them survives; ``--quick`` leaves the last two for later. Outcomes are kept under ``build/`` by what
was planted where, so a run that was stopped goes on; ``--again`` tries what survived once more. A fault whose text is
gone is an error: ``run`` and ``report`` name it and exit with 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import mutants
from covering import FAST, NO_SUCH_TEST, NO_TESTS, SLOW, Covering, Without, prepare, pytest_in_fork

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "foveate"
LIST, OUTCOMES, MAPS = (
    ROOT / "tools" / "mutations.jsonl",
    ROOT / "build" / "mutations.jsonl",
    ROOT / "build" / "covering",
)
BATCHES = (4.0, 30.0)  # seconds of tests: a few quick ones, then more, until one fails
LONGEST = 300  # seconds of the processor for a file of tests
Fault = dict[str, Any]


def read_faults(only: list[str]) -> list[Fault]:
    faults = [json.loads(line) for line in LIST.read_text(encoding="utf-8").splitlines()]
    return [fault for fault in faults if not only or fault["file"].split("/")[0].removesuffix(".py") in only]


def planted(fault: Fault, source: str) -> str | None:
    """The source with the fault in it; None where the text does not stand there once."""
    return source.replace(fault["old"], fault["new"]) if source.count(fault["old"]) == 1 else None


def lines_of(fault: Fault, source: str) -> list[str]:
    """The lines that a fault changes, or those around what it leaves out or puts in."""
    begin = source.index(fault["old"])
    first = source.rfind("\n", 0, begin) + 1
    last = source.find("\n", begin + len(fault["old"]))
    before = source[first : last if last >= 0 else len(source)].splitlines()
    after = (source[first:begin] + fault["new"] + source[begin + len(fault["old"]) : last]).splitlines()
    changed: list[str] = []
    for kind, start, stop, _, _ in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            changed += before[start:stop] or before[max(start - 1, 0) : start + 1]
    # of a call over several lines the tracer may see the first alone
    head = source[:first].splitlines()[-12:]
    above = next((line for line in reversed(head) if line.rstrip().endswith(("(", "[", "{"))), "")
    return changed + ([above] if above else [])


def digest_of(*parts: str) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()


def key_of(fault: Fault) -> str:
    return digest_of(fault["file"], fault["old"], fault["new"])


class Outcomes:
    """What was found so far, by fault."""

    def __init__(self) -> None:
        OUTCOMES.parent.mkdir(exist_ok=True)
        OUTCOMES.touch()
        records = map(json.loads, OUTCOMES.read_text(encoding="utf-8").splitlines())
        self.found: dict[str, dict[str, str]] = {r["key"]: r for r in records}

    def of(self, fault: Fault, root: Path) -> str | None:
        path = root / "src" / "foveate" / fault["file"]
        if not path.exists() or planted(fault, path.read_text(encoding="utf-8")) is None:
            return "gone"
        if "explained" in fault:
            return "explained"
        found = self.found.get(key_of(fault))
        if found is None or (found["outcome"] == "survived" and not found.get("whole")):
            return None
        return found["outcome"]

    def passed_quick(self, fault: Fault) -> bool:
        """Whether the tests known to run its lines let it pass, and the others have not been asked."""
        found = self.found.get(key_of(fault))
        return found is not None and found["outcome"] == "survived" and not found.get("whole")

    def add(self, fault: Fault, outcome: str, test: str, whole: bool) -> None:
        record = {"key": key_of(fault), "outcome": outcome, "by": test, "whole": whole, "fault": _named(fault)}
        self.found[record["key"]] = record
        with OUTCOMES.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def run(faults: list[Fault], again: bool, quick: bool) -> None:
    outcomes = Outcomes()
    prepare()
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = Path(folder)
        _copy(copy)
        covering = Covering(copy, MAPS)
        covering.load()
        sound: set[str] = set()  # tests that are known to pass where there is no fault
        for number, fault in enumerate(faults, 1):
            known = outcomes.of(fault, copy)
            if known is not None and not (again and known == "survived"):
                continue
            if quick and not again and outcomes.passed_quick(fault):
                continue
            start, path = time.monotonic(), copy / "src" / "foveate" / fault["file"]
            source = path.read_text(encoding="utf-8")
            batches = _batches(covering.tests_of(fault["file"], lines_of(fault, source)))
            path.write_text(str(planted(fault, source)), encoding="utf-8")
            try:
                killer = _killer(copy, batches)
                if not killer and not quick:
                    killer = _killer_beside(copy, covering.mirror(fault["file"]), batches)
            finally:
                path.write_text(source, encoding="utf-8")
            if "::" in killer and killer not in sound and not _passes(copy, killer):
                raise SystemExit(f"{killer} fails without any fault; see {copy / 'build' / 'tests.log'}")
            sound.add(killer)
            outcome = "killed" if killer else "survived"
            outcomes.add(fault, outcome, killer, not quick)
            took = f"{outcome} in {time.monotonic() - start:.0f} s, {sum(map(len, batches))} tests"
            print(f"{number}/{len(faults)} {took}: {_named(fault)} by {killer}", file=sys.stderr, flush=True)


def _batches(tests: list[tuple[str, float]]) -> list[list[str]]:
    """The tests that run a fault's lines, as many as are asked."""
    batches: list[list[str]] = []
    left = iter(tests)
    for limit in BATCHES:
        batches.append([])
        total = 0.0
        while total < limit and (test := next(left, None)):
            batches[-1].append(test[0])
            total += test[1] + 0.05
    return [batch for batch in batches if batch]


def _killer(copy: Path, batches: list[list[str]]) -> str:
    """The first test that fails; none: the empty name."""
    limits = (30 + 4 * most for most in BATCHES)
    return next(
        filter(
            None, (_failing(copy, [*FAST, *batch], seconds) for batch, seconds in zip(batches, limits, strict=False))
        ),
        "",
    )


def _killer_beside(copy: Path, files: list[str], batches: list[list[str]]) -> str:
    """The same of whole test files: their fast tests but those that ran, then their slow ones."""
    ran = Without({test for batch in batches for test in batch})
    asked = ([*marked, file] for marked in (FAST, SLOW) for file in files)
    return next(filter(None, (_failing(copy, arguments, LONGEST, ran) for arguments in asked)), "")


def _passes(copy: Path, test: str) -> bool:
    return pytest_in_fork(copy, [test], None, LONGEST)[0] == 0


def _failing(copy: Path, arguments: list[str], seconds: float, plugin: Any = None) -> str:
    code, failed = pytest_in_fork(copy, ["-x", *arguments], plugin, seconds)
    if code == NO_SUCH_TEST:  # the trace is of an older file, or the name has a message in it that the fault changes
        files = dict.fromkeys(argument.partition("::")[0] for argument in arguments)
        code, failed = pytest_in_fork(copy, ["-x", *files], plugin, LONGEST)
    return "" if code in (0, NO_TESTS) else failed or f"exit code {code}"


def _copy(copy: Path) -> None:
    """The files of the project, known to git or new, and the compiled modules, found by content and not by time."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    compiled = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", str(copy / "src")]
    subprocess.run([sys.executable, *compiled], check=True)


def _named(fault: Fault) -> str:
    old, new = fault["old"].splitlines(), fault["new"].splitlines()
    differing = [f"{a.strip()}  ->  {b.strip()}" for a, b in zip(old, new, strict=False) if a != b]
    return f"{fault['file']}: {(differing or [old[-1].strip()])[0]}"


def report(faults: list[Fault]) -> int:
    """Print the sum, by folder, the survivors and what is gone; returns how many of these there are."""
    outcomes = Outcomes()
    by_part: dict[str, Counter[str]] = {}
    wrong = []
    for fault in faults:
        outcome = outcomes.of(fault, ROOT) or "not tried"
        by_part.setdefault(fault["file"].split("/")[0], Counter())[outcome] += 1
        if outcome in ("survived", "gone"):
            wrong.append(f"{outcome}: {_named(fault)}")
    for part, counts in [*sorted(by_part.items()), ("all", sum(by_part.values(), Counter()))]:
        counted = ", ".join(f"{counts[outcome]} {outcome}" for outcome in sorted(counts))
        print(f"{part}: {sum(counts.values())} faults: {counted}")
    print("\n".join(wrong))
    return len(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("trace", "run", "report", "make"))
    parser.add_argument("--only", nargs="+", default=[], metavar="FOLDER", help="of src/foveate (default: all)")
    parser.add_argument("--again", action="store_true", help="try what survived once more")
    parser.add_argument("--quick", action="store_true", help="only the tests known to run the fault's lines")
    parser.add_argument("--each", type=int, default=30, metavar="N", help="faults to make of each folder")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of which")
    args = parser.parse_args()
    if args.what == "make":
        listed = {(fault["file"], fault["old"], fault["new"]) for fault in read_faults([])}
        mutants.make(PACKAGE, listed, args.each, args.seed, args.only)
        return 0
    if args.what == "trace":
        prepare()
        Covering(ROOT, MAPS).trace(args.only)
        return 0
    if args.what == "run":
        run(read_faults(args.only), args.again, args.quick)
    return min(report(read_faults(args.only)), 1)


if __name__ == "__main__":
    sys.exit(main())
