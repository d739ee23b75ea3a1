"""Plant one small fault at a time and see whether a test notices: a test that cannot fail is worth nothing.

    python tools/mutations.py run                       # every fault of the list not tried yet, then the sum
    python tools/mutations.py run --only probes bench   # of these folders
    python tools/mutations.py report                    # what has been found so far
    python tools/mutations.py make --each 30 --seed 1   # more faults, drawn from the syntax trees, on standard output

A line of the list is ``{"file", "old", "new"}``: text that stands once in a file of ``src/foveate``, and what takes its
place; ``explained`` says why no test can notice (nothing changes, or only how fast). Faults are planted in a copy, in
which the fast tests of the file's folder run until one fails. Outcomes are kept under ``build/`` by what was planted
where, so a run that was stopped goes on, and a fault is tried again when its file or its tests have changed.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIST, OUTCOMES = ROOT / "tools" / "mutations.jsonl", ROOT / "build" / "mutations.jsonl"
# tests beside those of the folder of the same name
ALSO = {
    "probes": ["tests/cli/test_probe_*.py"],
    "bench": ["tests/cli/test_compare.py"],
    "report": ["tests/cli/test_compare.py"],
    "cli": ["tests/cli"],
    "model": ["tests/contracts"],
    "spec.py": ["tests/contracts/test_matrix.py"],
}
# imported before the faults are planted, so that each test run starts with them
AHEAD = (
    *("torch", "numpy", "transformers", "transformers.models.llama.modeling_llama", "transformers.trainer"),
    *("transformers.generation.utils", "tokenizers", "safetensors.torch", "matplotlib.figure", "rich.progress"),
    *("accelerate", "datasets", "pytest"),
)
SECONDS = 600  # a fault that makes the tests take longer has been noticed
Fault = dict[str, Any]


def read_faults(only: list[str]) -> list[Fault]:
    faults = [json.loads(line) for line in LIST.read_text(encoding="utf-8").splitlines()]
    return [fault for fault in faults if not only or fault["file"].split("/")[0].removesuffix(".py") in only]


def planted(fault: Fault, source: str) -> str | None:
    """The source with the fault in it; None where the text does not stand there once."""
    return source.replace(fault["old"], fault["new"]) if source.count(fault["old"]) == 1 else None


def tests_of(file: str, root: Path) -> list[str]:
    """The test files of a source file, those of its own name first."""
    part, stem = file.split("/")[0], Path(file).stem
    found = [*(root / "tests" / part).glob("test_*.py"), *(root / "tests").glob(f"test_{Path(part).stem}*.py")]
    for pattern in ALSO.get(part, []):
        place = root / pattern
        found += place.glob("test_*.py") if place.is_dir() else root.glob(pattern)
    names = sorted(dict.fromkeys(path.relative_to(root).as_posix() for path in found))
    return sorted(names, key=lambda name: stem not in name)


def digest_of(names: list[str], root: Path, *more: str) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for content in [*((root / n).read_bytes() for n in names if (root / n).exists()), json.dumps(more).encode()]:
        digest.update(content)
    return digest.hexdigest()


def key_of(fault: Fault, root: Path) -> str:
    """Changes with the fault and the file it is planted in."""
    return digest_of([f"src/foveate/{fault['file']}"], root, fault["old"], fault["new"])


class Outcomes:
    """Found so far: what survived counts until its tests change, what was killed until its file does."""

    def __init__(self) -> None:
        OUTCOMES.parent.mkdir(exist_ok=True)
        OUTCOMES.touch()
        records = map(json.loads, OUTCOMES.read_text(encoding="utf-8").splitlines())
        self.found: dict[str, tuple[str, str]] = {r["key"]: (r["outcome"], r["tests"]) for r in records}

    def of(self, fault: Fault, root: Path) -> str | None:
        if "explained" in fault:
            return "explained"
        outcome, tests = self.found.get(key_of(fault, root), (None, ""))
        return outcome if outcome != "survived" or tests == digest_of(tests_of(fault["file"], root), root) else None

    def add(self, fault: Fault, root: Path, outcome: str) -> None:
        key, tests = key_of(fault, root), digest_of(tests_of(fault["file"], root), root)
        self.found[key] = outcome, tests
        with OUTCOMES.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "outcome": outcome, "tests": tests}) + "\n")


def run(faults: list[Fault]) -> None:
    outcomes = Outcomes()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    for name in AHEAD:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = Path(folder)
        _copy(copy)
        seconds: dict[str, float] = {}  # that the tests of a file take without a fault
        for number, fault in enumerate(faults, 1):
            if outcomes.of(fault, copy) is not None:
                continue
            path, tests = copy / "src" / "foveate" / fault["file"], tests_of(fault["file"], copy)
            source = path.read_text(encoding="utf-8") if path.exists() else ""
            changed = planted(fault, source)
            for name in tests if changed is not None else []:
                if name not in seconds:
                    seconds[name] = _time_tests(copy, name)
            start = time.monotonic()
            if changed is None:
                outcome = "gone"
            else:
                path.write_text(changed, encoding="utf-8")
                # the likeliest to notice first, then the quickest
                tests.sort(key=lambda name: (path.stem not in name, seconds[name]))
                outcome = "survived" if all(_tests_pass(copy, name) for name in tests) else "killed"
                path.write_text(source, encoding="utf-8")
            outcomes.add(fault, copy, outcome)
            took = time.monotonic() - start
            print(f"{number}/{len(faults)} {outcome} in {took:.0f} s: {_named(fault)}", file=sys.stderr, flush=True)


def _time_tests(copy: Path, name: str) -> float:
    start = time.monotonic()
    if not _tests_pass(copy, name):
        print((copy / "tests.log").read_text(encoding="utf-8")[-3000:], file=sys.stderr)
        raise SystemExit(f"{name} fails without a fault")
    print(f"{name}: {time.monotonic() - start:.0f} s without a fault", file=sys.stderr, flush=True)
    return time.monotonic() - start


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


def _tests_pass(copy: Path, name: str) -> bool:
    """Run the fast tests, in a fork of this process, until one fails or there is no time left."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            out = os.open(copy / "tests.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1), os.dup2(out, 2)
            os.chdir(copy)
            sys.path[0] = str(copy / "src")
            os.environ["PYTHONPATH"] = str(copy / "src")
            import pytest

            quiet = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of AHEAD
            code = pytest.main(["-x", "-m", "not slow", *quiet, name])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(code))
    stop = time.monotonic() + SECONDS
    while time.monotonic() < stop:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) in (0, 5)  # 5: all of them are slow
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _named(fault: Fault) -> str:
    old, new = fault["old"].splitlines(), fault["new"].splitlines()
    differing = [f"{a.strip()}  ->  {b.strip()}" for a, b in zip(old, new, strict=False) if a != b]
    return f"{fault['file']}: {(differing or [old[-1].strip()])[0]}"


def report(faults: list[Fault]) -> int:
    """Print the sum, by folder, and the survivors; returns how many of these there are."""
    outcomes = Outcomes()
    by_part: dict[str, Counter[str]] = {}
    survivors = []
    for fault in faults:
        outcome = outcomes.of(fault, ROOT) or "not tried"
        by_part.setdefault(fault["file"].split("/")[0], Counter())[outcome] += 1
        if outcome == "survived":
            survivors.append(fault)
    for part, counts in [*sorted(by_part.items()), ("all", sum(by_part.values(), Counter()))]:
        counted = ", ".join(f"{counts[outcome]} {outcome}" for outcome in sorted(counts))
        print(f"{part}: {sum(counts.values())} faults: {counted}")
    for fault in survivors:
        print(f"survived: {_named(fault)}")
    return len(survivors)


# of a syntax tree -----------------------------------------------------------------------------------------------------

COMPARED: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
COMPUTED: dict[type, type] = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
COMPUTED |= {ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv}
RENAMED = {"min": "max", "max": "min", "any": "all", "all": "any", "argmax": "argmin", "zeros": "ones"}
QUIET = {"note", "print", "advance", "add_argument", "append"}  # whose loss is no fault, or too plain a one


def variants(node: ast.AST) -> Iterator[str]:
    """What could stand in the place of an expression, each a little wrong."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield ast.unparse(ast.Compare(node.left, [COMPARED[type(node.ops[0])]()], node.comparators))
    elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTED and not _is_text(node):
        yield ast.unparse(ast.BinOp(node.left, COMPUTED[type(node.op)](), node.right))
    elif isinstance(node, ast.BoolOp):
        yield ast.unparse(ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
        yield ast.unparse(node.operand)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield str(node.value + 1)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield str(not node.value)
    elif isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in RENAMED:
            renamed = ast.unparse(node.func)[: -len(name)] + RENAMED[name]
            yield ast.unparse(ast.Call(ast.Name(renamed), node.args, node.keywords))
        elif len(node.args) >= 2 and not any(isinstance(given, ast.Starred) for given in node.args[:2]):
            first, second, *rest = node.args
            if isinstance(first, ast.Name) and isinstance(second, ast.Name) and name not in ("isinstance", "getattr"):
                yield ast.unparse(ast.Call(node.func, [second, first, *rest], node.keywords))
    elif isinstance(node, ast.IfExp):
        yield ast.unparse(ast.IfExp(node.test, node.orelse, node.body))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        name = node.value.func.attr if isinstance(node.value.func, ast.Attribute) else ""
        if name and name not in QUIET:
            yield "pass"


def _is_text(node: ast.BinOp) -> bool:
    return any(isinstance(side, (ast.JoinedStr, ast.List)) or isinstance(getattr(side, "value", 0), str)
               for side in (node.left, node.right))  # fmt: skip


def _behaving(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of what a module does: not its types, its messages, nor the constants at its head."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.ImportFrom, ast.Import)):
                continue
            if isinstance(tree, ast.Module) and not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                continue
            if isinstance(node, ast.AST):
                yield node
                yield from _behaving(node)


def possible(path: Path, file: str) -> Iterator[Fault]:
    source = path.read_text(encoding="utf-8")
    lines = source.encode().splitlines(keepends=True)
    for node in _behaving(ast.parse(source)):
        for other in variants(node):
            first, last = node.lineno - 1, node.end_lineno
            start = sum(map(len, lines[:first])) + node.col_offset
            end = sum(map(len, lines[: last - 1])) + node.end_col_offset
            for above in range(first, max(first - 4, -1), -1):
                begin, stop = sum(map(len, lines[:above])), sum(map(len, lines[:last]))
                old = source.encode()[begin:stop].decode()
                if source.count(old) == 1:
                    new = source.encode()[begin:start] + other.encode() + source.encode()[end:stop]
                    yield {"file": file, "old": old.rstrip("\n"), "new": new.decode().rstrip("\n")}
                    break


def make(each: int, seed: int, only: list[str]) -> None:
    """Print ``each`` faults of every folder that are not in the list yet."""
    listed = {(fault["file"], fault["old"], fault["new"]) for fault in read_faults([])} if LIST.exists() else set()
    by_part: dict[str, list[Fault]] = {}
    for path in sorted((ROOT / "src" / "foveate").rglob("*.py")):
        file = path.relative_to(ROOT / "src" / "foveate").as_posix()
        by_part.setdefault(file.split("/")[0].removesuffix(".py"), []).extend(possible(path, file))
    for part, faults in by_part.items():
        if part in only:
            new = [fault for fault in faults if (fault["file"], fault["old"], fault["new"]) not in listed]
            for fault in random.Random(f"{seed} {part}").sample(new, min(each, len(new))):
                print(json.dumps(fault, ensure_ascii=False))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "report", "make"))
    parser.add_argument("--only", nargs="+", default=[], metavar="FOLDER", help="of src/foveate (default: all)")
    parser.add_argument("--each", type=int, default=30, metavar="N", help="faults to make of each folder")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of which")
    args = parser.parse_args()
    if args.what == "make":
        make(args.each, args.seed, args.only)
        return 0
    if args.what == "run":
        run(read_faults(args.only))
    return min(report(read_faults(args.only)), 1)


if __name__ == "__main__":
    sys.exit(main())
