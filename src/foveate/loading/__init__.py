"""Loading any causal language model safely: safetensors only, nothing pickled, no code from the checkpoint."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.errors import FoveateError
from foveate.loading.manifest import MANIFEST, checkpoint_steps, find_damage
from foveate.loading.weights import check_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["load", "model_folder", "pick_device", "quiet_transformers"]

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def load(
    path: str | Path, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model in evaluation mode, and its tokenizer.

    Args:
        path: a run directory (of an unfinished run, its newest whole checkpoint is taken), one of its ``checkpoint-N``
            folders, any Hugging Face causal language model's folder, or a ``.gguf`` file.
        device: by default a GPU if there is one.
        dtype: of the weights: ``float32`` by default, whatever they were saved in; ``auto`` for that.

    Raises:
        FoveateError: nothing there; a file missing or cut short, by name; pickled weights; not a causal language model.
    """
    from foveate.data.tokenizer import load_tokenizer
    from foveate.model.packing import store_by_columns

    if str(path).endswith(".gguf"):
        model, tokenizer = _load_gguf(Path(path), read_dtype(dtype))
    else:
        folder = model_folder(path)
        config = _read_config(folder)
        check_weights(folder)
        model = _load_model(folder, config, read_dtype(dtype))
        with quiet_transformers():
            tokenizer = load_tokenizer(folder)
    place: Any = pick_device(device or "auto")  # Any: transformers' stubs hide what Module.to takes
    model = model.to(place).eval()
    if model.config.model_type == "foveate":
        store_by_columns(model)
    return model, tokenizer


def model_folder(path: str | Path) -> Path:
    """The folder that holds the model ``path`` means, checked against its manifest if it has one (sizes only)."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise FoveateError(f"there is no model at {path}: {'it is a file' if folder.exists() else 'no such directory'}")
    if not (folder / MANIFEST).exists():
        if (folder / "config.json").exists():
            return folder
        return _newest_checkpoint(folder)
    damage = find_damage(folder, checksums=False)
    if damage is not None:
        raise FoveateError(f"the model {path} is damaged: {damage}")
    return folder


def _newest_checkpoint(run: Path) -> Path:
    damages = []
    for step in checkpoint_steps(run):
        folder = run / f"checkpoint-{step}"
        damage = find_damage(folder, checksums=False)
        if damage is None:
            return folder
        damages.append(f"{folder.name}: {damage}")
    if damages:
        raise FoveateError(f"the run {run} is unfinished and has no whole checkpoint: {'; '.join(damages)}")
    if (run / "foveate.yaml").exists():
        raise FoveateError(f"the run {run} has no checkpoint yet; train it further with foveate train --resume {run}")
    raise FoveateError(f"{run} is not a model: it has no config.json")


def _read_config(folder: Path) -> PreTrainedConfig:
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = given["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FoveateError(f"{folder / 'config.json'} is not a model's configuration: {_first_line(error)}") from None
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except FoveateError:
        raise
    except Exception as error:  # of which kind depends on the model's configuration class
        raise FoveateError(
            f"{folder} is of model type {kind!r}, which cannot be loaded without code of its own: {_first_line(error)}"
        ) from None
    known: Any = AutoModelForCausalLM._model_mapping.get(type(config), ())
    names = {model.__name__ for model in (known if isinstance(known, tuple) else (known,))}
    architectures = config.architectures or list(names)
    if not names & set(architectures):
        raise FoveateError(f"{folder} holds a {(*architectures, kind)[0]}, which is not a causal language model")
    return config


def _load_model(folder: Path, config: PreTrainedConfig, dtype: Any) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    try:
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise FoveateError(f"the model {folder} cannot be loaded: {_first_line(error)}") from None
    model, report = loaded
    if report["missing_keys"]:
        names = sorted(report["missing_keys"])
        raise FoveateError(f"the model {folder} lacks {len(names)} of its weights, {names[0]} among them")
    return model


def _load_gguf(path: Path, dtype: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not path.is_file():
        raise FoveateError(f"there is no model at {path}: no such file")
    try:
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype)
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except ImportError:
        raise FoveateError("reading .gguf files takes one more package: pip install gguf") from None
    except Exception as error:  # of which kind depends on where the file is damaged
        raise FoveateError(f"{path} cannot be loaded: {_first_line(error)}") from None
    return model, tokenizer


def read_dtype(dtype: str | torch.dtype | None) -> Any:
    """``fp32``, ``bfloat16``, ``torch.float16``, ... as a torch dtype; ``auto`` stays."""
    import torch

    if dtype is None:
        return torch.float32
    if isinstance(dtype, str) and dtype != "auto":
        found = getattr(torch, DTYPES.get(dtype, dtype), None)
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise FoveateError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}, auto")
        return found
    return dtype


def pick_device(device: str | torch.device) -> torch.device:
    """The device of that name; ``auto`` is a GPU if there is one."""
    import torch

    if str(device) == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        raise FoveateError(f"--device {device}: there is no such device; write auto, cpu, cuda or mps") from None
    missing = (found.type == "cuda" and not torch.cuda.is_available()) or (
        found.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise FoveateError(f"--device {device}: this machine, or this build of torch, has none; write cpu or auto")
    return found


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' own notes and progress bars: what matters of them is checked, and raised."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return str(error).strip().partition("\n")[0] or type(error).__name__
