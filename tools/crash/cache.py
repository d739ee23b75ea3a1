"""Three processes want the same tokens at once, and the one that makes them is killed.

    python tools/crash/cache.py

Of the two that wait, one must make them and the other take them; nothing half-made may be left.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WANTS = """
import sys
from pathlib import Path
from foveate.data.corpus import open_corpus
from foveate.data.tokenizer import load_tokenizer

tokenizer = load_tokenizer("tokenizer")
print("ready", flush=True)
sys.stdin.readline()
print(open_corpus(["books"], tokenizer, split="train", cache_dir=Path("cache")).tokens[:].sum())
"""
MAKES = "from foveate.data.tokenizer import make_tokenizer as make; make('bpe:258', lambda: 'a').save_pretrained('{}')"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", MAKES.format("tokenizer")], cwd=folder, check=True, capture_output=True)
        return test(Path(folder))


def test(folder: Path) -> int:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [subprocess.Popen([sys.executable, "-c", WANTS], cwd=folder, text=True, **pipes) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        print(file=process.stdin, flush=True)
    killed = wait_for_builder(folder)
    os.kill(killed, signal.SIGKILL)
    others = [(*process.communicate(), process.returncode) for process in processes if process.pid != killed]
    sums = {output.strip() for output, _, _ in others}
    builds = sum("documents are" in errors for _, errors, _ in others)
    left = [path.name for path in (folder / "cache" / "corpus").glob(".*")]
    codes = [code for *_, code in others]
    same = "the same" if len(sums) == 1 else "NOT THE SAME"
    print(
        f"killed the process that tokenised; the other two ended with {codes}, {builds} of them tokenised, "
        f"their tokens are {same}, left half-made: {left or 'nothing'}"
    )
    return 0 if (codes, builds, len(sums), left) == ([0, 0], 1, 1, []) else 1


def wait_for_builder(folder: Path) -> int:
    """The number of the process whose half-made folder is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for path in (folder / "cache").glob("corpus/.*.new"):
            if found := re.search(r"\.(\d+)\.new", path.name):
                return int(found[1])
        time.sleep(0.001)
    raise SystemExit("no process began to tokenise")


if __name__ == "__main__":
    raise SystemExit(main())
