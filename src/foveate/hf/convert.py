"""A Llama's weights in a plain walk: the same function, with its projections fused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from foveate.errors import FoveateError
from foveate.hf.configuration_foveate import FoveateConfig
from foveate.hf.modeling_foveate import FoveateForCausalLM


def from_llama(llama: LlamaForCausalLM) -> FoveateForCausalLM:
    """The model ``N@1`` that computes what ``llama`` computes.

    Raises:
        FoveateError: if it has what a plain walk has not: biases, scaled rotary positions, heads of another width.
    """
    c: Any = llama.config
    rope: dict[str, Any] = c.rope_parameters or {}
    _require(rope.get("rope_type", "default") == "default", "rope_type", rope.get("rope_type"), "default")
    _require(not (c.attention_bias or c.mlp_bias), "attention_bias or mlp_bias", True, False)
    _require(c.head_dim * c.num_attention_heads == c.hidden_size, "head_dim", c.head_dim, "hidden size over heads")
    _require(c.hidden_act == "silu", "hidden_act", c.hidden_act, "silu")
    config = FoveateConfig(
        walk=f"{c.num_hidden_layers}@1",
        vocab_size=c.vocab_size,
        hidden_size=c.hidden_size,
        num_attention_heads=c.num_attention_heads,
        num_key_value_heads=c.num_key_value_heads,
        intermediate_size=c.intermediate_size,
        max_position_embeddings=c.max_position_embeddings,
        rope_theta=rope.get("rope_theta", 10_000.0),
        rms_norm_eps=c.rms_norm_eps,
        tie_word_embeddings=c.tie_word_embeddings,
        bos_token_id=c.bos_token_id,
        eos_token_id=c.eos_token_id,
        pad_token_id=c.pad_token_id,
    )
    model: Any = FoveateForCausalLM(config)
    model.to(device=llama.device, dtype=llama.dtype)
    model.load_state_dict(_renamed(llama.state_dict(), c.num_hidden_layers))
    return model.train(llama.training)


def _require(holds: bool, name: str, value: object, wanted: object) -> None:
    if not holds:
        raise FoveateError(f"a plain walk cannot be this Llama: {name} is {value}, not {wanted}")


def _renamed(old: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    new = {
        "model.embed_tokens.weight": old["model.embed_tokens.weight"],
        "model.decoder.norm.weight": old["model.norm.weight"],
        "lm_head.weight": old["lm_head.weight"],
    }
    for i in range(layers):
        of, to = f"model.layers.{i}", f"model.decoder.steps.0.layers.{i}"
        new[f"{to}.attention_norm.weight"] = old[f"{of}.input_layernorm.weight"]
        new[f"{to}.qkv_proj.weight"] = torch.cat([old[f"{of}.self_attn.{name}_proj.weight"] for name in "qkv"])
        new[f"{to}.o_proj.weight"] = old[f"{of}.self_attn.o_proj.weight"]
        new[f"{to}.mlp_norm.weight"] = old[f"{of}.post_attention_layernorm.weight"]
        new[f"{to}.gate_up_proj.weight"] = torch.cat([old[f"{of}.mlp.{name}_proj.weight"] for name in ("gate", "up")])
        new[f"{to}.down_proj.weight"] = old[f"{of}.mlp.down_proj.weight"]
    return new
