"""Other people's models, built to the shape of one of ours, to be measured beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from foveate.errors import FoveateError
from foveate.spec import HierarchySpec


def llama(spec: HierarchySpec, vocab_size: int) -> PreTrainedModel:
    """transformers' Llama of as many layers as the walk, all at the shape of its level 1; SDPA and a growing cache."""
    level = spec.levels[0]
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=level.width,
            intermediate_size=level.feed_forward,
            num_hidden_layers=spec.n_layers,
            num_attention_heads=level.heads,
            num_key_value_heads=level.kv_heads,
            max_position_embeddings=1 << 20,
            tie_word_embeddings=True,
        )
    )


PEERS: dict[str, Callable[[HierarchySpec, int], PreTrainedModel]] = {"llama": llama}


def make_peer(name: str, spec: HierarchySpec, vocab_size: int) -> Any:
    """The peer ``name`` with random weights, in the shape of ``spec``."""
    if name not in PEERS:
        raise FoveateError(f"peer {name!r} is unknown; choose one of {', '.join(PEERS)}")
    torch.manual_seed(0)
    return PEERS[name](spec, vocab_size)
