"""``generate`` with a cache of a model's own, by either name that transformers has for it."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor
from transformers import GenerationMixin
from transformers.generation import GenerationMode

from foveate.errors import FoveateError
from foveate.hf.cache import FoveateCache
from foveate.hf.compiling import compile_for_generate, declared_length
from foveate.hf.inputs import check_prompt
from foveate.hf.private import CACHE, CACHE_NAMES, columns_of_prompt, keep_after_generate, take_cache


class FoveateGenerationMixin(GenerationMixin):
    """Of a model with ``own_cache``. transformers takes a class with GenerationMixin in a base's name to generate."""

    @functools.wraps(GenerationMixin.generate)
    def generate(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override, unused-ignore]
        cache = take_cache(kwargs)
        if cache is not None:
            kwargs[CACHE] = cache
        usual: Any = GenerationMixin.generate
        return usual(self, *args, **kwargs)

    def _prepare_cache_for_generation(  # type: ignore[override]  # of what it may be passed only this matters
        self, generation_config: Any, model_kwargs: dict[str, Any], generation_mode: Any, batch_size: int, *args: Any
    ) -> None:
        """Our cache instead of transformers', before the first token; a given one for as many rows as are decoded.

        ``args`` begins with the columns that there will be at most.
        """
        model: Any = self
        static = generation_config.cache_implementation == "static"
        if generation_config.cache_implementation not in (None, "dynamic", "static"):
            raise FoveateError(
                f"cache_implementation={generation_config.cache_implementation!r} does not fit a multi-scale model; "
                f"write 'static' or leave it out"
            )
        if static and generation_mode == GenerationMode.ASSISTED_GENERATION:
            raise FoveateError(
                "cache_implementation='static': assisted decoding takes tokens back, for which a cache has to grow; "
                "leave it out"
            )
        if (
            generation_mode == GenerationMode.ASSISTED_GENERATION
            and generation_config.return_dict_in_generate
            and generation_config.output_hidden_states
            and len(model.config.spec.levels) > 1
        ):
            raise FoveateError(
                "output_hidden_states: assisted decoding would cut the coarse levels by columns; leave one of them out"
            )
        given = take_cache(model_kwargs)
        mask = model_kwargs.get("attention_mask")
        columns = mask.shape[1] if mask is not None else columns_of_prompt(generation_config)
        rows = batch_size * max(generation_config.num_beams, generation_config.num_return_sequences)
        if static and isinstance(given, FoveateCache):
            raise FoveateError(
                "cache_implementation='static' makes a cache, and one is given; leave it out, and make the one given "
                "by model.make_cache(rows, max_length=N)"
            )
        declared = declared_length(model, args[0], generation_config) if static else None
        cache = model.own_cache(given, generation_config.use_cache is not False, rows, batch_size, max_length=declared)
        compile_for_generate(model, cache, generation_config)
        check_prompt(mask if not generation_config.is_assistant else None, columns, cache)
        if cache is None:
            return
        if isinstance(given, FoveateCache):
            keep_after_generate(given)
            if given.batch_size < rows:
                given.batch_repeat_interleave(rows // batch_size)
        model_kwargs[CACHE] = cache
        if generation_config.is_assistant:
            cache.activate_past_recording()
        else:
            cache.stop_recording()  # assisted decoding switches it on after this

    def _valid_auto_compile_criteria(self, *args: Any, **kwargs: Any) -> bool:
        """False: transformers would compile the whole forward, cache and all; steps are compiled by themselves."""
        return False

    def prepare_inputs_for_generation(  # type: ignore[override, unused-ignore]
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,  # by name: generate looks whether it is there
        cache: Any = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As usual, but what a given cache has read is not read again: assisted decoding would pass it once more.

        What was generated is no padding: no mask is passed with it, which the model would have to look into.
        """
        cache = take_cache({"cache": cache, "past_key_values": past_key_values})
        if next_sequence_length is None and isinstance(cache, FoveateCache) and cache.recording:
            check_prompt(None, input_ids.shape[1], cache)
            next_sequence_length = input_ids.shape[1] - cache.seen
        for name in ("tokenizer", "assistant_tokenizer"):
            kwargs.pop(name, None)  # generate's own, which it hands on with the model's
        usual: Any = GenerationMixin.prepare_inputs_for_generation
        inputs: dict[str, Any] = usual(
            self,
            input_ids,
            next_sequence_length=next_sequence_length,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **{CACHE: cache},
            **kwargs,
        )
        if not is_first_iteration and next_sequence_length == 1 and isinstance(cache, FoveateCache) and cache.seen:
            inputs.pop("attention_mask", None)
        # by both names: PEFT puts its prompt or prefix before every token if it sees no past_key_values
        return {**dict.fromkeys(CACHE_NAMES, inputs[CACHE]), **inputs} if inputs.get(CACHE) is not None else inputs

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> None:
        """None: the model counts, and what it would count need not be made, passed and compared for every token."""

    def generate_batch(self, *args: Any, **kwargs: Any) -> Any:
        raise FoveateError("continuous batching needs a paged cache, which a multi-scale model has not; use generate")

    @property
    def init_continuous_batching(self) -> Any:
        raise AttributeError("continuous batching needs a paged cache, which a multi-scale model has not; use generate")
