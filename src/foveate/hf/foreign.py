"""A cache that is not ours but holds something: a key and a value per token and layer, as PEFT's prefixes are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache

from foveate.errors import FoveateError
from foveate.hf.cache import FoveateCache
from foveate.spec import Full

if TYPE_CHECKING:
    from foveate.model.decoder import Decoder


def adopt(given: Any, decoder: Decoder, batch: int) -> FoveateCache:
    """A cache of ours with the keys and values of ``given``, through which gradients go; ``given`` is not written.

    Raises:
        FoveateError: the walk keeps something else than a key and a value per token and layer, or other shapes.
    """
    kind = type(given).__name__
    runs = [run for run in decoder.spec.runs if run.layers]
    if not isinstance(given, Cache) or any(run.stride > 1 or not isinstance(run.attention, Full) for run in runs):
        raise FoveateError(
            f"past_key_values is a {kind} with content, one item per token and layer, which only walks of full "
            f"attention on level 1 keep; use model.make_cache(), and instead of prefix tuning prompt tuning"
        )
    cache, tokens = FoveateCache(decoder.make_cache(batch)), given.get_seq_length()
    held: Any = given.layers
    layers = [(layer.keys, layer.values) for layer in held]
    level = decoder.spec.level(1)
    shape = (batch, level.kv_heads, tokens, level.head_dim)
    if len(layers) != sum(run.layers for run in runs) or any(part.shape != shape for parts in layers for part in parts):
        raise FoveateError(
            f"past_key_values is a {kind} of {len(layers)} layers of {tuple(layers[0][0].shape)}; "
            f"this model's are {sum(run.layers for run in runs)} of {shape}"
        )
    data, first = {}, 0
    for index, buffer in enumerate(cache.steps.buffers):
        data[index] = torch.stack([torch.stack(parts) for parts in layers[first : first + buffer.layers]])
        first += buffer.layers
    cache.steps.restore({"lengths": tokens, "furthest": tokens, "floor": 0, "slack": 0}, data)
    cache.seen = cache.unpadded = tokens
    return cache
