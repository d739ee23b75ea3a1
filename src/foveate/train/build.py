"""From settings to a model: its configuration, its precision, what of it decays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import nn

from foveate.shape import config_values
from foveate.train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def build_model(settings: TrainSettings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A freshly initialised model of the settings' shape; the same seed gives the same weights."""
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(settings.seed)
    return AutoModelForCausalLM.from_config(_configuration(settings, tokenizer), dtype=torch.float32)


def _configuration(settings: TrainSettings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    from foveate.data.tokenizer import vocabulary_size

    shared = {
        "vocab_size": vocabulary_size(tokenizer),
        "max_position_embeddings": settings.context,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    if settings.model == "foveate":
        from foveate.hf.configuration_foveate import FoveateConfig

        return FoveateConfig(**config_values(settings), **shared)
    from transformers import LlamaConfig

    spec = settings.spec
    level = spec.level(1)
    return LlamaConfig(
        hidden_size=level.width,
        num_hidden_layers=spec.n_layers,
        num_attention_heads=level.heads,
        num_key_value_heads=level.kv_heads,
        intermediate_size=level.feed_forward,
        **shared,
    )


def load_weights(model: PreTrainedModel, folder: Path) -> None:
    """Give ``model`` the weights that its ``save_pretrained`` has written."""
    weights = {name: value for file in folder.glob("model*.safetensors") for name, value in load_file(file).items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert set(missing) <= set(model.all_tied_weights_keys)  # saved once


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Let ``model`` compute its layers again in the backward pass, by the name that its transformers has for that."""
    enable: Any = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def count_parameters(model: PreTrainedModel) -> int:
    """Parameters of the layers: without the embedding and a head tied to it."""
    embedding = model.get_input_embeddings().weight
    return sum(parameter.numel() for parameter in model.parameters() if parameter is not embedding)


def decayed_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters that weight decay is for: matrices that multiply.

    Norms, biases, start vectors and embeddings are not; a head tied to the embedding counts as the embedding.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return [
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module.weight) not in embeddings
    ]
