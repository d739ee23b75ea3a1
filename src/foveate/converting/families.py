"""What each family of models calls its layers and settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foveate.converting.source import Source, SourceLayer
from foveate.errors import FoveateError, shown


def llama(model: Any) -> Source:
    c = model.config
    rope: dict[str, Any] = c.rope_parameters or {}
    _require(rope.get("rope_type", "default") == "default", "rope_type", rope.get("rope_type"), "default")
    _require(not (c.attention_bias or c.mlp_bias), "attention_bias or mlp_bias", True, False)
    _require(c.head_dim * c.num_attention_heads == c.hidden_size, "head_dim", c.head_dim, "hidden size over heads")
    _require(c.hidden_act == "silu", "hidden_act", c.hidden_act, "silu")
    old = model.state_dict()
    return Source(
        family="llama",
        settings={
            **_sizes(c),
            "rope_theta": rope.get("rope_theta", 10_000.0),
        },
        layers=tuple(SourceLayer(weights=_layer(old, i)) for i in range(c.num_hidden_layers)),
        ends={
            "model.embed_tokens.weight": old["model.embed_tokens.weight"],
            "model.decoder.norm.weight": old["model.norm.weight"],
            "lm_head.weight": old["lm_head.weight"],
        },
    )


FAMILIES: dict[str, Callable[[Any], Source]] = {"llama": llama}


def read_source(model: Any) -> Source:
    """What a model of transformers is made of.

    Raises:
        FoveateError: it is of no known family, or has what a walk cannot represent.
    """
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise FoveateError(f"a {shown(kind).strip(chr(39))} cannot be converted; families: {', '.join(FAMILIES)}")
    return FAMILIES[kind](model)


def _require(holds: bool, name: str, value: object, wanted: object) -> None:
    if not holds:
        raise FoveateError(f"a walk cannot be this model: {name} is {shown(value)}, not {shown(wanted)}")


def _sizes(c: Any) -> dict[str, Any]:
    return {
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "intermediate_size": c.intermediate_size,
        "max_position_embeddings": c.max_position_embeddings,
        "rms_norm_eps": c.rms_norm_eps,
        "tie_word_embeddings": c.tie_word_embeddings,
        "bos_token_id": c.bos_token_id,
        "eos_token_id": c.eos_token_id,
        "pad_token_id": c.pad_token_id,
    }


def _layer(old: dict[str, Tensor], i: int) -> dict[str, Tensor]:
    of = f"model.layers.{i}"
    return {
        "attention_norm.weight": old[f"{of}.input_layernorm.weight"],
        "qkv_proj.weight": torch.cat([old[f"{of}.self_attn.{name}_proj.weight"] for name in "qkv"]),
        "o_proj.weight": old[f"{of}.self_attn.o_proj.weight"],
        "mlp_norm.weight": old[f"{of}.post_attention_layernorm.weight"],
        "gate_up_proj.weight": torch.cat([old[f"{of}.mlp.{name}_proj.weight"] for name in ("gate", "up")]),
        "down_proj.weight": old[f"{of}.mlp.down_proj.weight"],
    }
