"""Where a run starts: from weights that are there, whole or with adapters beside them."""

from __future__ import annotations

import copy
import warnings
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from foveate.errors import FoveateError
from foveate.loading import load
from foveate.train.build import load_weights
from foveate.train.settings import TrainSettings, flag_name

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_FILE = "lora.safetensors"
LORA_ALPHA = 2  # times the rank: what adapters say counts so much

SHAPE = {  # setting: field of a configuration
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "ff": "intermediate_size",
}
MOVES = ("pooling", "expanding")


def open_start(settings: TrainSettings) -> tuple[TrainSettings, PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer of ``settings.from_``, and the settings with its shape.

    Raises:
        FoveateError: there is none, it is of no kind that can be trained here, or the settings ask for another shape.
    """
    model, tokenizer = load(str(settings.from_), device="cpu")
    config = model.config
    kind = config.model_type
    if kind not in ("foveate", "llama"):
        raise FoveateError(f"--from: {settings.from_} is a {kind}; convert it first: foveate convert {settings.from_}")
    shape: dict[str, Any] = {name: getattr(config, its) for name, its in SHAPE.items()}
    if kind == "foveate":
        shape |= {name: getattr(config, name) for name in ("walk", "levels", "pooling", "expanding")}
    else:
        plain = TrainSettings()  # it has no moves
        shape |= {"walk": f"{config.num_hidden_layers}@1", "levels": None}
        shape |= {name: getattr(plain, name) for name in MOVES}
    adopted = replace(settings, model=kind, **shape)
    for setting in fields(settings):
        asked, its = getattr(settings, setting.name), getattr(adopted, setting.name)
        if kind == "llama" and setting.name in MOVES and asked != its:
            raise FoveateError(
                f"{flag_name(setting.name)}: the model of --from {settings.from_} has no levels to move between; "
                "leave it out"
            )
        if asked not in (setting.default, its):
            raise FoveateError(
                f"{flag_name(setting.name)}: the model of --from {settings.from_} has {its}, not {asked}; leave it out"
            )
    return adopted, _as_new(model, settings.context), tokenizer


def _as_new(model: PreTrainedModel, context: int) -> PreTrainedModel:
    """The same weights in a model as it is built for training, whatever loading has made of them."""
    new = make_model(model.config, context)
    new.load_state_dict(model.state_dict())
    return new


def make_model(config: PreTrainedConfig, context: int) -> PreTrainedModel:
    """A model of a configuration, to be trained on ``context`` tokens in fp32; its weights are yet to come."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(config)
    config.max_position_embeddings = max(config.max_position_embeddings, context)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def add_adapters(model: PreTrainedModel, settings: TrainSettings) -> Any:
    """``model`` with adapters of PEFT beside all its matrices but the head; they alone train.

    Raises:
        FoveateError: PEFT is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise FoveateError("--lora needs one more package: pip install peft") from None
    rank = settings.lora or 0
    config = LoraConfig(r=rank, lora_alpha=LORA_ALPHA * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    config.base_model_name_or_path = settings.from_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a name of before
        return get_peft_model(model, config)


def save_model(model: Any, folder: Path, settings: TrainSettings, weights: Any) -> None:
    """Write the model so that others load it; of adapters also what goes on training."""
    if settings.lora is None:
        model.save_pretrained(folder, state_dict=weights)
        return
    from peft import get_peft_model_state_dict

    save_file(
        {name: value.contiguous() for name, value in get_peft_model_state_dict(model).items()}, folder / ADAPTER_FILE
    )
    if settings.lora_merge:
        copy.deepcopy(model).merge_and_unload().save_pretrained(folder)  # a copy: merging and parting would round
    else:
        model.save_pretrained(folder)


def restore_model(model: Any, folder: Path, settings: TrainSettings) -> None:
    """Give ``model`` what ``save_model`` has written."""
    if settings.lora is None:
        load_weights(model, folder)
        return
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(model, load_file(folder / ADAPTER_FILE))
