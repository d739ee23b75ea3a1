"""Results as a comparison of three models leaves them, one of them not made here and so with less known."""

from __future__ import annotations

import pytest

from foveate.report.results import Results

NAMES = ("plain <8>", "multi & scale", "llama")


def records() -> list[dict]:
    setup = {
        "kind": "setup",
        "date": "2026-11-22T12:00:00+00:00",
        "text": "books <held out>",
        "text_bytes": 147_000,
        "context": 512,
        "device": "cpu",
        "processor": "A Processor",
        "cores": 2,
        "threads": 2,
        "load": 0.5,
        "system": "Linux x86_64",
        "versions": {"foveate": "0.1.0"},
    }
    found = [setup]
    for at, name in enumerate(NAMES):
        ours = name != "llama"
        runs = [{"stride": 1, "layers": 8, "attention": "full"}]
        if at == 1:
            runs = [{"stride": s, "layers": n, "attention": a} for s, n, a in ((1, 1, "window"), (4, 16, "fovea"))]
        model = {
            "walk": ("8@1", "1@1 16@4", None)[at],
            "model_type": "foveate" if ours else "llama",
            "runs": runs,
            "layers": sum(run["layers"] for run in runs),
            "layer_runs_per_token": sum(run["layers"] / run["stride"] for run in runs),
            "width": 128,
            "params": 1_870_000 * (at + 1),
            "trained_tokens": 10**6 if ours else None,
            "trained_seconds": 300.0 if ours else None,
            "settings": {"walk": at, "lr": 0.003, "levels": None, "data": ["books"]} if ours else None,
            "command": f"foveate train --walk {at}" if ours else None,
        }
        found.append({"kind": "model", "name": name, **model})
        found.append({"kind": "quality", "name": name, "bpb": 2.3 - at / 50, "tokens": 50_000, "bytes": 147_000})
        memory = {"batch": 4, "context": 512, "kept_bytes": 137e6 - at * 40e6, "peak_bytes": 193e6, "state_bytes": 3e7}
        predicted = 136e6 - at * 40e6 if ours else None
        found.append({"kind": "training_memory", "name": name, **memory, "predicted_kept_bytes": predicted})
        found.append({"kind": "training_speed", "name": name, "train_tokens_per_s": 5000.0 * (at + 1)})
        for context in (512, 8192):
            times = {"ms_per_token": 3.0 - at, "ms_low": 2.5 - at, "ms_high": 3.5 - at, "state_bytes": context * 1000}
            state = {"state_bytes": context * 900} if ours else None
            found.append({"kind": "decode", "name": name, "context": context, **times, "predicted": state})
        if ours:
            line = {"tokens": [1e5, 5e5, 1e6], "seconds": [10.0, 50.0, 99.0], "bpb": [2.9, 2.5, 2.3 - at / 50]}
            train = {**line, "loss": [7.0, 5.0, 4.5]}
            found.append({"kind": "curve", "name": name, "train": train, "valid": line})
            sample = {"prompt": "The <captain>", "text": " & his ship", "temperature": 0.8, "seed": 0}
            found.append({"kind": "sample", "name": name, **sample})
    for name, low, high in ((NAMES[1], -0.03, -0.01), (NAMES[2], -0.05, 0.01)):
        difference = {"bpb": -0.02, "low": low, "high": high, "unit": "window", "units": 98}
        found.append({"kind": "difference", "name": name, "against": NAMES[0], **difference})
    return found


@pytest.fixture
def results() -> Results:
    return Results(records())


@pytest.fixture
def two_untrained() -> Results:
    """The least there may be: two models, no curves, no samples, one context."""
    kept = [r for r in records() if r["kind"] not in ("curve", "sample") and r.get("context") != 8192]
    kept = [r for r in kept if r.get("name") != NAMES[1]]
    for record in kept:
        if record["kind"] == "model":
            record.update(settings=None, command=None, trained_tokens=None, trained_seconds=None)
    return Results(kept)
