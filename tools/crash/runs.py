"""A real ``foveate train`` on the bundled books, small enough to be repeated many times, and what two of them share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from foveate.loading.manifest import checkpoint_steps, find_damage
from foveate.train.metrics import read_metrics

CLOCK = ("elapsed", "tokens_per_s", "memory_bytes")  # what no two runs have alike
STEP_TOKENS = 8 * 64
KINDS = ("model", "optimizer", "process")


def train_words(out: Path, *, steps: int, hidden: int = 64, save_every: int = 5, keep: int = 2) -> list[str]:
    """bf16, batches in two parts, a log line every third step, validations at other steps than log lines."""
    flags = {
        "walk": "1@1 2@4 1@1",
        "hidden": hidden,
        "heads": 2,
        "tokenizer": "bytes",
        "context": 64,
        "batch": 8,
        "accumulate": 2,
        "dtype": "bf16",
        "device": "cpu",
        "tokens": steps * STEP_TOKENS,
        "log-every": 3,
        "save-every": save_every,
        "eval-every": 2 * save_every,
        "eval-tokens": 1000,
        "keep": keep,
        "out": out,
    }
    return ["train", "--data", "books", *(str(word) for name, value in flags.items() for word in (f"--{name}", value))]


def start(words: list[str], *, cache: Path) -> subprocess.Popen[str]:
    """The command in a process of its own, on one thread."""
    environment = os.environ | {"FOVEATE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "foveate", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(words: list[str], *, cache: Path) -> str:
    """Run the command to its end, which must be a success; what it wrote on standard error."""
    process = start(words, cache=cache)
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"foveate {' '.join(words)} ended with {process.returncode}:\n{errors}")
    return errors


def newest_whole(run: Path) -> int:
    """The step of the newest checkpoint that its manifest confirms; 0 if there is none."""
    return next((step for step in checkpoint_steps(run) if find_damage(run / f"checkpoint-{step}") is None), 0)


def log(run: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in CLOCK} for record in read_metrics(run)]


def differences(run: Path, other: Path) -> list[str]:
    """What is not the same, to the bit, in two finished runs; clocks are not compared."""
    found = [] if log(run) == log(other) else ["metrics.jsonl"]
    mine, others = checkpoint_steps(run), checkpoint_steps(other)
    if mine != others:
        return [*found, f"checkpoints {mine} and {others}"]
    names = ["model.safetensors", *(f"checkpoint-{step}/{kind}.safetensors" for step in mine for kind in KINDS)]
    return found + [name for name in names if not same_tensors(run / name, other / name)]


def same_tensors(one: Path, other: Path) -> bool:
    mine, others = load_file(one), load_file(other)
    return mine.keys() == others.keys() and all(
        mine[name].dtype == others[name].dtype and mine[name].equal(others[name]) for name in mine
    )
