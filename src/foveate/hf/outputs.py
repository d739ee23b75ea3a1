"""What a forward returns, with the cache readable by both of its names whatever transformers calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from foveate.hf.private import CACHE, CACHE_NAMES


@dataclass
class BackboneOutput(BaseModelOutputWithPast):
    """``last_hidden_state``, ``cache`` (also ``past_key_values``), ``hidden_states``.

    Where rows hold several documents, ``documents`` [batch, columns] numbers each token's in its row.
    """

    documents: Tensor | None = None


class Features(NamedTuple):
    """A backbone's output as its own head asks for it at every token: transformers' classes take longer to make."""

    last_hidden_state: Tensor
    cache: Any
    hidden_states: tuple[Tensor, ...] | None
    documents: Tensor | None


@dataclass
class CausalLMOutput(CausalLMOutputWithPast):
    """``loss``, ``logits``, ``cache`` (also ``past_key_values``), ``hidden_states``."""


def _cache(self: Any) -> Any:
    return getattr(self, CACHE)


for _output in (BackboneOutput, CausalLMOutput):
    for _name in CACHE_NAMES:
        if _name != CACHE:
            setattr(_output, _name, property(_cache))
