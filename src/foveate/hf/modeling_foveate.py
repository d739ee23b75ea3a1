"""Foveate as a Hugging Face causal language model.

Shape legend: B batch rows, T new columns, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.generation import GenerationMode
from transformers.modeling_outputs import CausalLMOutputWithPast

from foveate.errors import FoveateError
from foveate.hf.cache import FoveateCache
from foveate.hf.configuration_foveate import FoveateConfig
from foveate.hf.inputs import check_positions, check_prompt, new_columns
from foveate.model.linear import Linear
from foveate.model.lm import LanguageModel
from foveate.model.packing import stored_by_rows
from foveate.model.start import init_weights


class FoveatePreTrainedModel(PreTrainedModel):
    config: FoveateConfig
    config_class = FoveateConfig
    base_model_prefix = "model"
    model_tags = ["foveate", "multi-scale"]  # noqa: RUF012  # of the model card that push_to_hub writes
    supports_gradient_checkpointing = True
    _no_split_modules = ["Run", "Pool", "Expand"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _can_compile_fullgraph = False
    _is_stateful = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        init_weights(module, self.config.initializer_range, init)


class FoveateForCausalLM(FoveatePreTrainedModel, GenerationMixin):
    """A multi-scale language model: ``config.walk`` says at which resolutions it works.

    Padding may stand anywhere: every row's groups count from its own first real token. Positions are counted, not
    passed. The cache is a ``FoveateCache``, written in place by each call it is passed to.
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: FoveateConfig) -> None:
        super().__init__(config)
        self.model = LanguageModel(config.spec, config.vocab_size, theta=config.rope_theta, eps=config.rms_norm_eps)
        self.lm_head = Linear(config.hidden_size_of_tokens, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.embed_tokens = value

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As usual, also where weights are stored by columns."""
        with stored_by_rows(self):
            super().save_pretrained(save_directory, *args, **kwargs)

    def make_cache(self, batch: int = 1) -> FoveateCache:
        """An empty cache for ``batch`` rows; pass it as ``past_key_values``."""
        return FoveateCache(self.model.decoder.make_cache(batch))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: FoveateCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits [B, T, V] of the new columns, the loss if ``labels``.

        Args:
            input_ids: [B, T] token ids, or ``inputs_embeds`` [B, T, D].
            attention_mask: [B, T], or [B, seen + T] with the columns the cache has read; 0 is padding, in any place.
            position_ids: not needed; refused where they are not what the model counts itself.
            labels: [B, T], shifted here; -100 is ignored.
            use_cache: default: the config's choice outside training.
            logits_to_keep: logits of the last so many columns alone, or of the columns that a tensor indexes.
            output_hidden_states: also return the embeddings, the output of every layer in the order of the walk, and
                last the normalised features, in the last layer's stead if that is on level 1. A layer on level 1 puts
                out [B, T, D]; one of stride k [B, S, D], of the units that this call completes in each row, from the
                left: unit u is of the row's tokens k·u … k·u + k - 1. ``config.hidden_state_strides`` names the
                strides. Padding is zeros.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise FoveateError("pass either input_ids or inputs_embeds")
        return_dict = kwargs.pop("return_dict", None)
        if kwargs.pop("output_attentions", None) or self.config.output_attentions:
            raise FoveateError("output_attentions is not supported: attention is computed without its weights")
        tokens = input_ids if input_ids is not None else inputs_embeds
        assert tokens is not None
        if tokens.dim() != (2 if input_ids is not None else 3):
            raise FoveateError(f"input_ids or inputs_embeds has shape {tuple(tokens.shape)}; pass [batch, columns]")
        B, T = tokens.shape[:2]
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and self.training and self.is_activation_checkpointing:
            if past_key_values is not None:
                raise FoveateError("past_key_values: layers that are computed again in the backward pass can use none")
            use_cache = False  # as transformers' own models
        cache = self._own_cache(past_key_values, use_cache, B)
        seen, steps = (cache.seen, cache.steps) if cache is not None else (0, None)
        mask_BT = new_columns(attention_mask, B, T, seen)
        if position_ids is not None:
            check_positions(position_ids, mask_BT, steps.lengths if steps is not None else 0, T, seen)
        keep = logits_to_keep if isinstance(logits_to_keep, int) else 0
        if cache is not None:
            cache.expect(min(keep or T, T))  # who asks for the logits of several tokens may take as many back
        wanted = output_hidden_states if output_hidden_states is not None else self.config.output_hidden_states
        streams: list[Tensor] | None = [] if wanted else None
        h_BTD = self.model(tokens, mask_BT, steps, keep, streams)
        if cache is not None:
            cache.note(T, mask_BT)
        if isinstance(logits_to_keep, Tensor):
            h_BTD = h_BTD[:, logits_to_keep]
        logits = self.lm_head(h_BTD)
        loss = None
        if labels is not None or kwargs.get("shift_labels") is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=cache if use_cache else None,
            hidden_states=None if streams is None else tuple(streams),
        )
        return output.to_tuple() if return_dict is False or not (return_dict or self.config.return_dict) else output

    @torch.no_grad()
    def read(
        self, input_ids: Tensor, cache: FoveateCache, progress: Callable[[int], Any] | None = None
    ) -> FoveateCache:
        """Read a prompt [B, T] into ``cache`` in bounded memory, ``progress`` told the columns read after each chunk.

        A document is read once and asked often: ``generate(ids, past_key_values=copy.deepcopy(cache))``, where ``ids``
        begins with what was read, goes on from there.
        """
        step = max(self.model.chunk // len(input_ids), 1)
        for chunk in input_ids.split(step, 1):
            self(input_ids=chunk, past_key_values=cache, use_cache=True, logits_to_keep=1)
            if progress is not None:
                progress(chunk.shape[1])
        return cache

    def _own_cache(self, given: Any, use_cache: bool, *batch: int) -> FoveateCache | None:
        """The cache given, one for the first ``batch`` instead of an empty foreign one, or None if none is wanted."""
        if isinstance(given, FoveateCache):
            if given.batch_size not in batch:
                raise FoveateError(f"past_key_values holds {given.batch_size} rows, the input has {batch[0]}")
            return given
        if given is not None and (not isinstance(given, Cache) or given.get_seq_length()):
            raise FoveateError(f"past_key_values is a {type(given).__name__} with content; use model.make_cache()")
        return self.make_cache(batch[0]) if use_cache else None

    def _prepare_cache_for_generation(  # type: ignore[override]  # of what it may be passed only this matters
        self, generation_config: Any, model_kwargs: dict[str, Any], generation_mode: Any, batch_size: int, *args: Any
    ) -> None:
        if generation_config.cache_implementation not in (None, "dynamic"):
            raise FoveateError(
                f"cache_implementation={generation_config.cache_implementation!r} does not fit a multi-scale model; "
                f"leave it out"
            )
        if (
            generation_mode == GenerationMode.ASSISTED_GENERATION
            and generation_config.return_dict_in_generate
            and generation_config.output_hidden_states
            and len(self.config.spec.levels) > 1
        ):
            raise FoveateError(
                "output_hidden_states: assisted decoding would cut the coarse levels by columns; leave one of them out"
            )
        given = model_kwargs.get("past_key_values")
        mask = model_kwargs.get("attention_mask")
        columns = mask.shape[1] if mask is not None else generation_config._mask_length
        rows = batch_size * max(generation_config.num_beams, generation_config.num_return_sequences)
        cache = self._own_cache(given, generation_config.use_cache is not False, rows, batch_size)
        check_prompt(mask if not generation_config.is_assistant else None, columns, cache)
        if cache is None:
            return
        if isinstance(given, FoveateCache):
            given._is_user_defined = True  # type: ignore[attr-defined]  # generate's own mark
            if given.batch_size < rows:
                given.batch_repeat_interleave(rows // batch_size)
        model_kwargs["past_key_values"] = cache
        if generation_config.is_assistant:
            cache.activate_past_recording()
        else:
            cache.stop_recording()  # assisted decoding switches it on after this

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,  # by name: generate looks whether it is there
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As usual, but what a given cache has read is not read again: assisted decoding would pass it once more."""
        if next_sequence_length is None and isinstance(past_key_values, FoveateCache) and past_key_values.recording:
            check_prompt(None, input_ids.shape[1], past_key_values)
            next_sequence_length = input_ids.shape[1] - past_key_values.seen
        usual: Any = GenerationMixin.prepare_inputs_for_generation
        return usual(
            self,
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> None:
        """None: the model counts, and what it would count need not be made, passed and compared for every token."""

    def generate_batch(self, *args: Any, **kwargs: Any) -> Any:
        raise FoveateError("continuous batching needs a paged cache, which a multi-scale model has not; use generate")

    @property
    def init_continuous_batching(self) -> Any:
        raise AttributeError("continuous batching needs a paged cache, which a multi-scale model has not; use generate")
