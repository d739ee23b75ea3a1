"""The models of a comparison: trained runs, or any causal language models, and what is known of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.loading.several import Named, load_several
from foveate.train.metrics import read_metrics
from foveate.train.settings import TrainSettings, settings_of

DRAWN_POINTS = 200  # of a curve; more than a plot can show


@dataclass(frozen=True, kw_only=True)
class Subject(Named):
    """One model of a comparison; ``settings`` is None for a model that ``foveate train`` has not made."""

    settings: TrainSettings | None

    @property
    def positions(self) -> int | None:
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def reads_beyond_positions(self) -> bool:
        """Whether longer texts than it was trained on can be read at all: not where positions are a table."""
        config = self.model.config.get_text_config()
        return any(hasattr(config, name) for name in ("walk", "rope_theta", "rope_parameters"))

    def describe(self) -> dict[str, Any]:
        """A record of what the model is and how it was trained."""
        config = self.model.config.get_text_config()
        spec = getattr(config, "spec", None)
        runs = [{"stride": 1, "layers": config.num_hidden_layers, "attention": "full"}]
        if spec is not None:
            runs = [{"stride": r.stride, "layers": r.layers, "attention": r.attention.name} for r in spec.runs]
        settings = self.settings
        log = [] if settings is None else read_metrics(self.path)
        trained = [record for record in log if record["kind"] == "train"]
        return {
            "kind": "model",
            "name": self.name,
            "path": str(self.path),
            "model_type": config.model_type,
            "walk": None if spec is None else str(spec),
            "runs": runs,
            "layers": sum(run["layers"] for run in runs),
            "layer_runs_per_token": sum(run["layers"] / run["stride"] for run in runs),
            "width": config.hidden_size,
            "vocabulary": config.vocab_size,
            "params": self.model.num_parameters(),
            "trained_tokens": trained[-1]["tokens"] if trained else None,
            "trained_seconds": trained[-1]["elapsed"] if trained else None,
            "settings": None if settings is None else dataclasses.asdict(settings),
            "command": None if settings is None else settings.command(),
        }

    def curve(self) -> dict[str, Any] | None:
        """A record of how its loss fell, from the log of its run; None if there is none."""
        log = read_metrics(self.path) if self.settings is not None else []
        train = _thin([record for record in log if record["kind"] == "train"])
        valid = _thin([record for record in log if record["kind"] == "valid"])
        if not train:
            return None
        return {
            "kind": "curve",
            "name": self.name,
            "train": _columns(train, "loss"),
            "valid": _columns(valid, "bpb"),
        }


def load_subjects(paths: Sequence[str | Path], *, device: str = "auto") -> list[Subject]:
    """As ``load_several``, with the settings of those that ``foveate train`` has made."""
    return [Subject(**vars(each), settings=settings_of(each.path)) for each in load_several(paths, device=device)]


def _thin(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every n-th record, and the last."""
    every = -(-len(records) // DRAWN_POINTS) or 1
    return list(reversed(records[::-1][::every]))


def _columns(records: list[dict[str, Any]], value: str) -> dict[str, list[float]]:
    names = {"tokens": "tokens", "seconds": "elapsed", value: value}
    return {name: [record[key] for record in records] for name, key in names.items()}
