"""What this package uses of transformers that transformers does not promise: each thing once, with its reason.

A release that moves one of them fails ``tests/hf/test_private.py``, which names it. ``CONTRIBUTING.md`` lists them too,
with the methods of ``GenerationMixin`` that ``foveate.hf.generation`` overrides.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import transformers
from transformers.modeling_outputs import CausalLMOutputWithPast

from foveate.errors import FoveateError

OLDEST, TOO_NEW = (5, 20), (5, 25)  # of transformers: what the tests were run with, as pyproject.toml allows it


def check_version(version: str) -> None:
    """Raise a ``FoveateError`` unless this release of transformers was tested.

    An untested one may well run and write other text than it should, as 5.24 did when it renamed what ``generate``
    hands over. So this is an error, where a note would be read past.
    """
    numbers = tuple(int(number) for number in re.findall("[0-9]+", version)[:2])
    if not OLDEST <= numbers < TOO_NEW:
        low, high = (".".join(map(str, bound)) for bound in (OLDEST, TOO_NEW))
        raise FoveateError(
            f"transformers {version} is not one that this release of foveate was tested with; "
            f"install another: pip install 'transformers>={low},<{high}'"
        )


check_version(transformers.__version__)

# The name under which generate hands a cache to the model, and the model hands it back; it changed in 5.24.
CACHE = (
    "cache" if any(field.name == "cache" for field in dataclasses.fields(CausalLMOutputWithPast)) else "past_key_values"
)
CACHE_NAMES = ("cache", "past_key_values")


def take_cache(given: dict[str, Any]) -> Any:
    """The cache among arguments by either of its names, which are removed; None if there is none.

    Of an empty one and one with content, which PEFT passes beside generate's, it is the latter.

    Raises:
        FoveateError: two different ones.
    """
    caches = [cache for cache in (given.pop(name, None) for name in CACHE_NAMES) if cache is not None]
    if len(caches) == 2:
        filled = [cache for cache in caches if not hasattr(cache, "get_seq_length") or cache.get_seq_length()]
        caches = filled if len(filled) == 1 else caches
    if len(caches) == 2 and caches[0] is not caches[1]:
        raise FoveateError("cache and past_key_values are two names of one argument; pass one of them")
    return caches[0] if caches else None


def columns_of_prompt(generation_config: Any) -> int:
    """Of a batch whose mask generate has dropped, since nothing is padded: it notes how long the mask was.

    A cache that has read the whole prompt leaves nothing to go on from, which only this number shows.
    """
    return int(generation_config._mask_length)


def keep_after_generate(cache: Any) -> None:
    """Tell generate that a cache is the caller's: one that is not may be left a token ahead of the text."""
    cache._is_user_defined = True


def checkpointing_argument() -> str:
    """The name in TrainingArguments of computing layers again in the backward pass; it changed in 5.23."""
    from transformers import TrainingArguments

    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    return "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"


def attention_of(config: Any) -> Any:
    """The kind of attention that was asked for, by from_pretrained or as config.attn_implementation."""
    return config._attn_implementation


def causal_models(config_class: type) -> tuple[type, ...]:
    """The classes that AutoModelForCausalLM would build for a configuration; every public call builds one."""
    from transformers import AutoModelForCausalLM

    known: Any = AutoModelForCausalLM._model_mapping.get(config_class, ())
    return known if isinstance(known, tuple) else (known,)
