"""Other people's models, built to the shape of one of ours, to be measured beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from foveate.errors import FoveateError
from foveate.hf.configuration_foveate import FoveateConfig
from foveate.hf.modeling_foveate import FoveateForCausalLM
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


def make_models(
    shapes: Sequence[Mapping[str, Any]],
    peers: Sequence[str],
    *,
    vocab_size: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, PreTrainedModel]:
    """Untrained models of ``shapes`` (keyword arguments of ``FoveateConfig``), and peers in the shape of the first.

    Raises:
        FoveateError: for a peer that is not in ``PEERS``.
    """
    models: dict[str, Any] = {}
    for shape in shapes:
        torch.manual_seed(0)
        models[shape["walk"]] = FoveateForCausalLM(FoveateConfig(**shape, vocab_size=vocab_size))
    for name in peers:
        if name not in PEERS:
            raise FoveateError(f"peer {name!r} is unknown; choose one of {', '.join(PEERS)}")
        torch.manual_seed(0)
        models[name] = PEERS[name](FoveateConfig(**shapes[0]).spec, vocab_size)
    return {name: model.to(device=device, dtype=dtype) for name, model in models.items()}
