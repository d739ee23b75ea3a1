"""Which tests run which lines: those that could notice a fault, the quickest first.

Each test file runs once, in a fork that has the heavy imports already, with its lines traced. A line is known by its
text, so that the map stays right where lines above it come and go. What runs in a test's set-up, or when its module is
imported, counts for every test of its file: fixtures are shared.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# imported before a fault is planted, so that each test run starts with them
AHEAD = (
    *("torch", "numpy", "transformers", "transformers.models.llama.modeling_llama", "transformers.trainer"),
    *("transformers.generation.utils", "tokenizers", "safetensors.torch", "matplotlib.figure", "rich.progress"),
    *("accelerate", "datasets", "peft", "hypothesis", "pytest", "pytest_timeout", "_hypothesis_pytestplugin"),
)
LEFT_OUT = ("tests/tools", "tests/fuzz")  # of which few lines are only there
# where else, than in the folder of its name, the tests of a folder or a module of src/foveate are
ALSO = {
    "backends": ("tests/model",),
    "data": ("tests/train/test_streaming.py",),
    "devices.py": ("tests/cli", "tests/train/test_run.py", "tests/train/test_start.py"),
    "hf": ("tests/test_loading.py", "tests/model/test_cache.py"),
    "loading": ("tests/test_loading.py", "tests/test_loading_hub.py", "tests/test_loading_hostile.py"),
    "model": ("tests/contracts", "tests/hf/test_generate.py"),
    "probes": ("tests/report", "tests/cli"),
    "report": ("tests/cli",),
    "scoring.py": ("tests/train/test_evaluate.py", "tests/bench/test_paired.py", "tests/probes"),
    "spec": ("tests/test_spec", "tests/test_shape", "tests/test_presets", "tests/contracts", "tests/test_cost"),
    "stats.py": ("tests/bench/test_paired.py", "tests/probes/test_horizons.py", "tests/probes/test_rare_words.py"),
    "train": ("tests/cli/test_demo.py",),
    "zooming": ("tests/hf/test_zoom.py", "tests/hf/test_zoom_budget.py"),
}
SECONDS = 600  # of the processor for a run of tests; what takes longer has been noticed
WAITING = 5  # times as long on the clock, where others use the machine, or nothing goes on
NO_SUCH_TEST, NO_TESTS = 4, 5  # exit codes of pytest
TIME = "(time)"  # in a failed test's place
# not the plugins of whatever packages are there, but the two that the tests need; the warning is of AHEAD
QUIET = ["-q", "-p", "no:cacheprovider", "-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin"]
QUIET += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
FAST, SLOW = ["-m", "not slow"], ["-m", "slow"]


def prepare() -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    sys.dont_write_bytecode = True
    for name in AHEAD:
        importlib.import_module(name)
    gc.freeze()  # pytest collects garbage ten times at the end of each run, and none of it is here


def pytest_in_fork(root: Path, arguments: list[str], plugin: Any = None, seconds: float = SECONDS) -> tuple[int, str]:
    """The exit code of pytest on the project in ``root``, and the first test that failed; 1 if it takes too long."""
    read, write = os.pipe()
    log = root / "build" / "tests.log"
    log.parent.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        code, failed = 1, FirstFailure()
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1), os.dup2(out, 2)
            os.chdir(root)
            sys.path[0] = str(root / "src")
            sys.modules["__main__"] = ModuleType("__main__")  # which processes that tests spawn import
            os.environ["PYTHONPATH"] = str(root / "src")
            import pytest

            code = pytest.main([*QUIET, *arguments], plugins=[failed, *([plugin] if plugin else [])])
            os.write(write, failed.name.encode()[:4000])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(code))
    os.close(write)
    stop = time.monotonic() + WAITING * seconds
    code = -1
    while code < 0 and time.monotonic() < stop:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = abs(os.waitstatus_to_exitcode(status))
        else:
            time.sleep(0.02)
    if code < 0:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        name = pipe.read().decode()
    if code < 0 or code in (signal.SIGXCPU, signal.SIGKILL):
        return 1, TIME
    return code, name


class FirstFailure:
    """A plugin of pytest."""

    name = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid


class Without:
    """A plugin of pytest that leaves out the tests that have passed already."""

    def __init__(self, passed: set[str]) -> None:
        self.passed = passed

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid not in self.passed]


class Tracer:
    """A plugin of pytest: the lines of ``package`` that each test runs, written as JSON to ``out``."""

    def __init__(self, package: Path, out: Path) -> None:
        self.package, self.out = f"{package}{os.sep}", out
        self.shared: set[tuple[str, int]] = set()
        self.own: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.current = self.shared

    def _call(self, frame: Any, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self.package):
            return None
        self.current.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line

    def _line(self, frame: Any, event: str, arg: Any) -> Any:
        self.current.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line

    def pytest_sessionstart(self) -> None:
        sys.settrace(self._call)
        threading.settrace(self._call)

    def pytest_runtest_logstart(self) -> None:
        sys.settrace(self._call)
        self.current = self.shared

    def pytest_runtest_call(self, item: Any) -> None:
        self.current = self.own[item.nodeid]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" and report.passed:
            self.seconds[report.nodeid] = report.duration
        self.current = self.shared

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        names = list(self.seconds)
        ran: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for index, lines in [(-1, self.shared), *((i, self.own[name]) for i, name in enumerate(names))]:
            for file, number in lines:
                ran[file.removeprefix(self.package)][str(number)].append(index)
        texts = {file: Path(self.package, file).read_text(encoding="utf-8").splitlines() for file in ran}
        by_text: dict[str, dict[str, list[int]]] = {}
        for file, numbers in ran.items():
            found: dict[str, set[int]] = defaultdict(set)
            for number, tests in numbers.items():
                if 0 < int(number) <= len(texts[file]):
                    found[short(texts[file][int(number) - 1])] |= set(tests)
            by_text[file] = {text: sorted(tests) for text, tests in found.items()}
        self.out.write_text(json.dumps({"tests": self.seconds, "lines": by_text}), encoding="utf-8")


def short(line: str) -> str:
    return hashlib.blake2b(line.strip().encode(), digest_size=6).hexdigest()


class Covering:
    """The map of a project's fast tests, kept in ``folder``, a file for each test file."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._maps: dict[str, Any] = {}

    def _kept(self, name: str) -> Path:
        digest = hashlib.blake2b((self.root / name).read_bytes(), digest_size=6).hexdigest()
        return self.folder / f"{name.replace('/', '.')}.{digest}.json"

    def test_files(self) -> Iterator[str]:
        for path in sorted((self.root / "tests").rglob("test_*.py")):
            name = path.relative_to(self.root).as_posix()
            if not name.startswith(LEFT_OUT):
                yield name

    def mirror(self, file: str) -> list[str]:
        """The test files of the folder that mirrors a source file's, those of its name first."""
        part, stem = file.split("/")[0], Path(file).stem
        places = (f"tests/{part}", f"tests/test_{stem}", *ALSO.get(part, ()))
        names = [name for name in self.test_files() if name.startswith(places)]
        return sorted(
            names, key=lambda name: (stem not in name, [name.startswith(place) for place in places].index(True))
        )

    def trace(self, only: list[str]) -> None:
        """Run every test file (of those folders) that is not known as it is today."""
        for name in self.test_files():
            if (only and not name.startswith(tuple(f"tests/{part}" for part in only))) or self._kept(name).exists():
                continue
            start, out = time.monotonic(), self._kept(name)
            code, failed = pytest_in_fork(self.root, [*FAST, name], Tracer(self.root / "src" / "foveate", out), 1200)
            print(f"traced {name}: {code} {failed} {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)

    def load(self) -> None:
        self._maps = {}
        for name in self.test_files():
            if self._kept(name).exists():
                self._maps[name] = json.loads(self._kept(name).read_text(encoding="utf-8"))

    def tests_of(self, file: str, lines: list[str]) -> list[tuple[str, float]]:
        """The tests that run one of the lines of a source file, and seconds: the likeliest and quickest first."""
        part, stem = file.split("/")[0].removesuffix(".py"), Path(file).stem
        found: dict[str, tuple[float, float]] = {}
        for name, known in self._maps.items():
            near = 1 if stem in name else 2 if f"/{part}/" in name or part in name else 6
            names, by_text = list(known["tests"]), known["lines"].get(file, {})
            for line in lines:
                for index in by_text.get(short(line), []):
                    # what is only in a fixture may be looked at by any test of the file
                    for test in names if index < 0 else [names[index]]:
                        seconds = known["tests"][test]
                        rank = near * (seconds + 0.05) * (3 if index < 0 else 1)
                        found[test] = min(found.get(test, (rank, seconds)), (rank, seconds))
        return [(test, found[test][1]) for test in sorted(found, key=lambda test: found[test])]
