"""Who may import whom, how long a file may be, and what importing foveate may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import foveate
from foveate.cli import available_commands

PACKAGE = Path(foveate.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# a part may import those it names and what they in turn may import
PARTS = {
    "errors": set(),
    "limits": {"errors"},
    "files": set(),
    "progress": set(),
    "stats": set(),
    "devices": {"errors", "limits"},
    "scoring": {"devices", "data"},
    "spec": {"errors"},
    "values": {"errors"},
    "presets": {"spec"},
    "shape": {"presets", "limits"},
    "cost": {"spec"},
    "roofline": {"cost"},
    "backends": {"errors"},
    "model": {"spec", "backends", "zooming"},
    "zooming": {"spec"},
    "hf": {"model", "zooming", "cost", "files"},
    "data": {"errors", "limits", "files", "progress"},
    "loading": {"hf", "data", "devices"},
    "converting": {"hf", "loading", "presets"},
    "train": {"hf", "data", "loading", "cost", "shape", "values", "scoring"},
    "export": {"hf", "loading", "train"},
    "tasks": {"hf", "data", "loading"},
    "serve": {"hf", "data", "loading"},
    "probes": {"hf", "data", "loading", "train", "stats", "report"},
    "bench": {"hf", "data", "loading", "train", "cost", "stats", "serve"},
    "promises": {"loading"},
    "report": {"errors", "files", "spec"},
    "ask": {"hf", "data", "loading", "scoring"},
    "pages": {"probes", "bench", "report", "serve"},
    "app": {"pages", "probes", "bench", "promises", "report", "export", "tasks", "serve", "ask", "converting"},
    "cli": {"app", "roofline"},
}
TOP = {
    "__init__",
    "__main__",
}  # the public names and the command: they may import everything, and nothing imports them

HEAVY = ("torch", "transformers", "datasets", "tokenizers", "numpy", "pandas", "matplotlib", "rich", "yaml")


def may_import(part: str) -> set[str]:
    reach, new = {part}, set(PARTS[part])
    while new:
        reach |= new
        new = {below for above in new for below in PARTS[above]} - reach
    return reach


def imports(path: Path) -> Iterator[str]:
    """The parts of foveate that a file imports, wherever in it."""
    here = ("foveate", *path.relative_to(PACKAGE).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: -node.level], *filter(None, [node.module])] if node.level else [node.module or ""]
            # the version is not part of any layer
            names = [".".join([*base, alias.name]) for alias in node.names if alias.name != "__version__"]
        else:
            continue
        for name in names:
            package, *rest = name.split(".")
            if package == "foveate":
                yield rest[0] if rest and rest[0] in PARTS else "__init__"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_keep_to_the_layers(path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert part in PARTS or part in TOP, f"add {part} to the layers of this test"
    if part in TOP:
        return
    assert set(imports(path)) <= may_import(part)


def test_a_wrong_import_is_seen(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "model").mkdir()
    file = tmp_path / "model" / "new.py"
    file.write_text(
        "def f():\n    from foveate.hf import cache\n    from ..train import run\n    from foveate import load, spec\n"
    )
    assert set(imports(file)) == {"hf", "train", "__init__", "spec"}
    assert not {"hf", "train"} & may_import("model")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_two_ideas(path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def child(code: str) -> list[str]:
    """The lines that a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()


def test_importing_foveate_is_light() -> None:
    *loaded, seconds = child(
        "import sys, time; start = time.process_time(); import foveate; took = time.process_time() - start\n"
        f"print(*sorted(set({HEAVY}) & set(sys.modules)), sep='\\n'); print(took)"
    )
    assert [name for name in loaded if name] == []
    assert float(seconds) < 0.2


@pytest.mark.parametrize("command", ["", *available_commands()])
def test_help_is_light(command) -> None:
    words = [*command.split(), "--help"]
    loaded = child(
        f"import sys, time; from foveate.cli import main; code = main({words}); took = time.process_time()\n"
        f"print('LOADED', code, *sorted(set({HEAVY}) & set(sys.modules)), took < 0.5)"
    )[-1]
    assert loaded == "LOADED 0 True"
