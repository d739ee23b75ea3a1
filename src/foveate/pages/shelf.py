"""The models that a page shows: named on the command line, loaded when they are first asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.bench.subjects import Subject
from foveate.devices import free_memory, pick_device
from foveate.errors import FoveateError, shown
from foveate.loading import load, model_folder, quiet_transformers
from foveate.loading.several import short_names
from foveate.scoring import position_limit
from foveate.train.folder import holds_run
from foveate.train.settings import settings_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_CONTEXT = 1024  # tokens of a window, of models that tell none
WEIGHTS = ("*.safetensors", "*.gguf")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A model that is loaded; ``folder`` is the checkpoint that it is of."""

    name: str
    path: Path
    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    context: int  # tokens of a window in which text is scored, as `foveate eval` takes it

    @property
    def spec(self) -> Any:
        """The walk's; None for models that have none."""
        return getattr(self.model.config, "spec", None)

    @property
    def limit(self) -> int | None:
        """Positions that the model has; None: any."""
        return position_limit(self.model)

    def subject(self) -> Subject:
        """As comparisons take it."""
        return Subject(
            name=self.name, path=self.path, model=self.model, tokenizer=self.tokenizer, settings=settings_of(self.path)
        )


class Shelf:
    """Models by their names. ``reader`` loads; only the worker's thread calls it."""

    def __init__(self, paths: Sequence[str | Path], *, device: str = "auto", dtype: str = "fp32") -> None:
        """
        Args:
            paths: runs, models of others, or folders that hold runs.
            dtype: of the weights, as ``load`` takes it.

        Raises:
            FoveateError: nothing there.
        """
        folders = [found for path in paths for found in _models_at(Path(path).expanduser())]
        unique = list({folder.resolve(): folder for folder in folders}.values())
        self.device, self.dtype = device, dtype
        self.paths = dict(zip(short_names(unique), unique, strict=True))
        self._loaded: dict[str, Reader] = {}
        self._lock = threading.Lock()

    def path(self, name: Any) -> Path:
        """
        Raises:
            FoveateError: no model has that name, or it is gone.
        """
        if not isinstance(name, str) or name not in self.paths:
            raise FoveateError(f"model: there is none named {shown(name)}; there are {', '.join(self.paths) or 'none'}")
        path = self.paths[name]
        if not path.exists():
            with self._lock:
                self._loaded.pop(name, None)
            raise FoveateError(f"{name} has gone: there is nothing at {path} any more")
        return path

    def reader(self, name: Any) -> Reader:
        """The model of that name, of its newest checkpoint.

        Raises:
            FoveateError: as ``path``; it cannot be loaded, or does not fit into memory.
        """
        path = self.path(name)
        folder = path if path.is_file() else model_folder(path)
        kept = self._loaded.get(name)
        if kept is not None and kept.folder == folder:
            return kept
        self._loaded.pop(name, None)
        self._check_memory(folder)
        with quiet_transformers():
            model, tokenizer = load(path, device=self.device, dtype=self.dtype)
        limit, settings = position_limit(model), settings_of(path)
        told = settings.context if settings is not None else min(limit or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
        made = Reader(name=name, path=path, folder=folder, model=model, tokenizer=tokenizer, context=told)
        self._loaded[name] = made
        return made

    def _check_memory(self, folder: Path) -> None:
        files = [folder] if folder.is_file() else [file for kind in WEIGHTS for file in folder.glob(kind)]
        needed, free = sum(file.stat().st_size for file in files), free_memory(pick_device(self.device))
        if needed > free:
            raise FoveateError(
                f"{folder.name} takes {needed / 2**30:,.1f} GiB of memory, of which {free / 2**30:,.1f} GiB are free"
            )

    def describe(self) -> list[dict[str, Any]]:
        """What is known of each model without loading it; ``error`` says why one cannot be used."""
        return [self._describe(name, path) for name, path in self.paths.items()]

    def _describe(self, name: str, path: Path) -> dict[str, Any]:
        told: dict[str, Any] = {"name": name, "run": holds_run(path), "walk": None, "runs": [], "error": None}
        if path.is_file():
            return told
        try:
            self.path(name)
            config = json.loads((model_folder(path) / "config.json").read_text(encoding="utf-8"))
            if config.get("model_type") == "foveate":
                from foveate.hf.configuration_foveate import FoveateConfig

                spec = FoveateConfig.from_dict(config).spec
                told |= {"walk": str(spec), "runs": [_run(run) for run in spec.runs if run.layers]}
            else:
                layers = config.get("num_hidden_layers") or config.get("n_layer")
                told["runs"] = [{"layers": layers, "stride": 1, "attention": "full"}] if layers else []
        except (FoveateError, OSError, ValueError, AttributeError) as error:
            told["error"] = " ".join(str(error).split())
        return told


def _run(run: Any) -> dict[str, Any]:
    return {"layers": run.layers, "stride": run.stride, "attention": str(run.attention)}


def _models_at(path: Path) -> list[Path]:
    """The model that is there, or those in a folder that is none itself."""
    if path.is_file() and path.suffix == ".gguf":
        return [path]
    if not path.is_dir():
        raise FoveateError(f"there is no model at {path}: {'it is a file' if path.exists() else 'no such directory'}")
    if (path / "config.json").exists() or holds_run(path):
        return [path]
    inside = [each for each in sorted(path.iterdir()) if (each / "config.json").exists() or holds_run(each)]
    if not inside:
        raise FoveateError(f"there is no model at {path}, and none in the folders there")
    return inside
