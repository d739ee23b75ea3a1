"""Tiny random models of transformers' architectures, from their own configuration classes.

Sizes are set by the names that configurations give them. What a class derives from others, such as lists with an entry
per layer, it derives itself.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import torch
from torch import nn

from foveate.errors import FoveateError, first_line

VOCABULARY = 61
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    # width
    "hidden_size": 32,
    "n_embd": 32,
    "d_model": 32,
    "dim": 32,
    "embedding_size": 32,
    "word_embed_proj_dim": 32,
    "dim_model": 32,
    "embedding_dim": 32,
    # depth
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "decoder_layers": 2,
    "encoder_layers": 2,
    "num_blocks": 2,
    # heads
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 8,
    "dim_head": 8,
    # feed-forward
    "intermediate_size": 48,
    "ffn_dim": 48,
    "ffn_hidden_size": 48,
    "n_inner": 48,
    "decoder_ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "dim_ff": 48,
    "dff": 48,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "mlp_hidden_size": 48,
    # experts
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    # latent attention
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    # state spaces and linear attention
    "state_size": 8,
    "ssm_state_size": 8,
    "mamba_d_state": 8,
    "mamba_d_head": 8,
    "mamba_n_heads": 8,
    "mamba_n_groups": 1,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "n_groups": 1,
    "time_step_rank": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "lru_width": 32,
    "attention_hidden_size": 32,
    # what they read
    "max_position_embeddings": 512,
    "n_positions": 512,
    "n_ctx": 512,
    "sliding_window": 6,
    "attention_window_size": 6,
    "window_size": 6,
    "attention_chunk_size": 8,
    # scale of the weights: small ones would hide what a layer does
    "initializer_range": 0.2,
    "init_std": 0.2,
    # ids with a meaning of their own
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "is_decoder": True,
}
BLT_PART = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.2,
    "sliding_window": 6,
}
# where one name's usual value does not fit a class
SPECIAL: dict[str, dict[str, Any]] = {
    "blt": {
        "patcher_config": BLT_PART,
        "encoder_config": BLT_PART | {"num_hidden_layers": 1, "hidden_size_global": 32},
        "decoder_config": BLT_PART | {"hidden_size_global": 32},
        "global_config": BLT_PART,
        "encoder_hash_byte_group_vocab": 100,
        "local_attention_window_len": 6,
        "patching_threshold": 3.5,
    },
    "bamba": {"num_hidden_layers": 3, "attn_layer_indices": [1], "mamba_expand": 2},
    "dbrx": {"attn_config": {"kv_n_heads": 2}, "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4}},
    "deepseek_v2": {"head_dim": 4, "num_key_value_heads": 4},
    "deepseek_v3": {"head_dim": 4, "num_key_value_heads": 4},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "gemma2": {"query_pre_attn_scalar": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 6},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 48, "mamba_expand": 2},
    "gpt_oss": {"num_experts_per_tok": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_hidden_layers": 3, "use_mamba_kernels": False},
    "llama4_text": {"intermediate_size_mlp": 48, "num_hidden_layers": 4},
    "mamba2": {"expand": 2, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"], "mamba_expand": 2},
    "opt": {"word_embed_proj_dim": 32},
    "qwen3_next": {"num_hidden_layers": 4, "full_attention_interval": 4},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "stablelm": {"use_qkv_bias": True},
    "zamba2": {"num_hidden_layers": 4},
}
NOISE = 0.05
LARGEST = 5_000_000


def known_architectures() -> list[str]:
    """The model types that transformers has a causal language model of."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(name: str) -> Any:
    """A configuration of a model type with everything small.

    Raises:
        FoveateError: no such type, or sizes that its class refuses.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if name not in known_architectures():
        close = difflib.get_close_matches(name, known_architectures(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise FoveateError(f"transformers has no causal language model of the architecture {name!r}{hint}")
    kind = CONFIG_MAPPING[name]
    accepted = set(inspect.signature(kind.__init__).parameters) | set(getattr(kind, "__dataclass_fields__", ()))
    mapped = getattr(kind, "attribute_map", {})
    sizes = {key: value for key, value in SIZES.items() if key in accepted and key not in mapped}
    try:
        return kind(**(sizes | SPECIAL.get(name, {})))
    except Exception as error:  # of which kind depends on the class
        raise FoveateError(f"no tiny {name} can be configured: {first_line(error)}") from error


def tiny_model(name: str, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A random model of a model type, in which nothing is zero: what is would hide its part of the model.

    It is made in ``dtype``, as a loaded one is: ``model.to(dtype)`` would round what positions are turned by too.

    Raises:
        FoveateError: no such type, or no small one can be built.
    """
    from transformers import AutoModelForCausalLM

    config = tiny_config(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            with torch.device("meta"):
                size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
            if size > LARGEST:
                raise ValueError(f"it would still have {size:,} parameters")
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        except Exception as error:  # of which kind depends on the class
            raise FoveateError(f"no tiny {name} can be built: {first_line(error)}") from error
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter.add_(NOISE * torch.randn_like(parameter))
    return model.eval()
