"""Loading any causal language model safely: safetensors only, nothing pickled, no code from the checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.devices import pick_device, read_dtype
from foveate.errors import FoveateError, first_line, shown
from foveate.files import SETTINGS_FILE
from foveate.limits import check_counts, read_json
from foveate.loading.hub import fetch_model, is_hub_name
from foveate.loading.manifest import MANIFEST, checkpoint_steps, find_damage
from foveate.loading.weights import ADAPTER, Weights, check_gguf, check_redirections, check_values, check_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["load", "load_model", "model_folder", "pick_device", "quiet_transformers"]


def load(
    path: str | Path, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model in evaluation mode, and its tokenizer.

    Args:
        path: a run directory (of an unfinished run, its newest whole checkpoint is taken), one of its ``checkpoint-N``
            folders, any Hugging Face causal language model's folder or name on the hub, or a ``.gguf`` file.
        device: by default a GPU if there is one.
        dtype: of the weights: ``float32`` by default, whatever they were saved in; ``auto`` for that.

    Raises:
        FoveateError: nothing there; a file missing or cut short, by name; pickled weights; not a causal language model.
    """
    from foveate.data.tokenizer import CHOICES, load_tokenizer

    if str(path).endswith(".gguf"):
        model, tokenizer = _load_gguf(Path(path), read_dtype(dtype))
        return _placed(model, Path(path), device), tokenizer
    folder = _local_folder(path)
    model = _read_model(folder, dtype)
    try:
        with quiet_transformers():
            tokenizer = load_tokenizer(folder)
    except FoveateError as error:
        reason = str(error).removesuffix(f"; {CHOICES}")
        raise FoveateError(f"the model's {reason}; save one into its folder") from None
    return _placed(model, Path(path), device), tokenizer


def load_model(
    path: str | Path, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> PreTrainedModel:
    """The model alone, as ``load`` has it: its folder needs no tokenizer."""
    if str(path).endswith(".gguf"):
        return _placed(_load_gguf(Path(path), read_dtype(dtype))[0], Path(path), device)
    return _placed(_read_model(_local_folder(path), dtype), Path(path), device)


def _local_folder(path: str | Path) -> Path:
    return model_folder(fetch_model(str(path)) if is_hub_name(path) else path)


def _read_model(folder: Path, dtype: str | torch.dtype | None) -> PreTrainedModel:
    weights = check_weights(folder)
    return _load_model(folder, _read_config(folder), weights, read_dtype(dtype))


def _placed(model: PreTrainedModel, path: Path, device: str | torch.device | None) -> PreTrainedModel:
    from foveate.backends import cpu

    check_values(model, path)
    place: Any = pick_device(device or "auto")  # Any: transformers' stubs hide what Module.to takes
    model = model.to(place).eval()
    if model.config.model_type == "foveate" and model.device.type == "cpu":
        cpu.accelerate(model)
    return model


def model_folder(path: str | Path) -> Path:
    """The folder that holds the model ``path`` means, checked against its manifest if it has one (sizes only)."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise FoveateError(f"there is no model at {path}: {'it is a file' if folder.exists() else 'no such directory'}")
    if not (folder / MANIFEST).exists():
        ours, has_model = (folder / SETTINGS_FILE).exists(), (folder / "config.json").exists()
        if has_model and not ours:
            return folder
        # a run whose finished model was being put in place when it was killed has checkpoints; a checkpoint has none
        if not has_model or checkpoint_steps(folder):
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
    if (run / SETTINGS_FILE).exists():
        raise FoveateError(f"the run {run} has no checkpoint yet; train it further with foveate train --resume {run}")
    if (run / ADAPTER).exists():
        raise FoveateError(
            f"{run} is an adapter of a model, not a model; load it into its model with peft, merge it "
            f"(merge_and_unload) and save that, or train it with foveate train --lora, which merges it at the end"
        )
    raise FoveateError(f"{run} is not a model: it has no config.json")


def _read_config(folder: Path) -> PreTrainedConfig:
    from transformers import AutoConfig

    from foveate.hf.private import causal_models

    path = folder / "config.json"
    given = read_json(path)
    kind = given.get("model_type") if isinstance(given, dict) else None
    if not isinstance(kind, str):
        raise FoveateError(f"{path} is not a model's configuration: it has no 'model_type'")
    _check_settings(given, path)
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except FoveateError as error:
        raise FoveateError(f"{path}: {error}") from None
    except Exception as error:  # of which kind depends on the model's configuration class
        raise FoveateError(
            f"{folder} is of model type {shown(kind)}, which cannot be loaded without code of its own: "
            f"{first_line(error)}"
        ) from None
    names = {model.__name__ for model in causal_models(type(config))}
    architectures = given.get("architectures") or list(names)
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise FoveateError(f"{path}: architectures is {shown(architectures)}; it must be a list of names")
    if not names & set(architectures):
        holds = shown((*architectures, kind)[0]).strip("'")
        raise FoveateError(f"{folder} holds a {holds}, which is not a causal language model")
    return config


def _check_settings(given: dict[str, Any], path: Path) -> None:
    """Refuse what no library should be let at: numbers they count to, and names of other files, or of code."""
    check_counts(given, path)
    for settings in (given, *(value for value in given.values() if isinstance(value, dict))):
        for name in ("transformers_weights", "fusion_config", "distributed_config"):
            if settings.get(name) is not None:
                raise FoveateError(f"{path} sets {name}; save the model again with save_pretrained()")
        for name in ("attn_implementation", "_attn_implementation", "experts_implementation"):
            if "/" in str(settings.get(name)):  # a kernel on the hub, which is code
                raise FoveateError(f"{path}: {name} is {shown(settings[name])}, which is code from elsewhere")


def _load_model(folder: Path, config: PreTrainedConfig, weights: Weights, dtype: Any) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    from foveate.loading.building import bounded

    quantized = getattr(config, "quantization_config", None) is not None
    try:
        with quiet_transformers(), bounded(folder, weights, quantized=quantized):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in the report, with their shapes
            )
    except FoveateError:
        raise
    except Exception as error:  # of which kind depends on the model's class
        raise FoveateError(f"the model {folder} cannot be loaded: {first_line(error)}") from None
    model, report = loaded
    for name, saved, wanted in sorted(report["mismatched_keys"]):
        raise FoveateError(
            f"the model {folder} is damaged: its weight {name} has shape {tuple(saved)}, where its configuration asks "
            f"for {tuple(wanted)}"
        )
    if report["missing_keys"]:
        names = sorted(report["missing_keys"])
        raise FoveateError(f"the model {folder} lacks {len(names)} of its weights, {names[0]} among them")
    return model


def _load_gguf(path: Path, dtype: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

    from foveate.loading.building import bounded

    weights = check_gguf(path)
    check_redirections(path.parent)
    safely: Any = {"gguf_file": path.name, "trust_remote_code": False, "local_files_only": True}
    try:
        with quiet_transformers():
            given, _ = PreTrainedConfig.get_config_dict(path.parent, gguf_file=path.name, local_files_only=True)
            _check_settings(given, path)
            with bounded(path, weights, quantized=True):
                model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=dtype, **safely)
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **safely)
    except FoveateError:
        raise
    except ImportError:
        raise FoveateError("reading .gguf files takes one more package: pip install gguf") from None
    except Exception as error:  # of which kind depends on where the file is damaged
        raise FoveateError(f"{path} cannot be loaded: {first_line(error)}") from None
    return model, tokenizer


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
