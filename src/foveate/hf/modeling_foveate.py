"""Foveate as a Hugging Face causal language model.

Shape legend: B batch rows, T new columns, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from foveate.errors import FoveateError
from foveate.hf.cache import FoveateCache
from foveate.hf.configuration_foveate import FoveateConfig
from foveate.model.decoder import init_weights
from foveate.model.lm import LanguageModel

UNSUPPORTED_OUTPUTS = ("output_attentions", "output_hidden_states")


class FoveatePreTrainedModel(PreTrainedModel):
    config: FoveateConfig
    config_class = FoveateConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Run", "Pool", "Expand"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _can_compile_fullgraph = False
    _is_stateful = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        init_weights(module, self.config.initializer_range, self.config.spec.n_layers, init)


class FoveateForCausalLM(FoveatePreTrainedModel, GenerationMixin):
    """A multi-scale language model: ``config.walk`` says at which resolutions it works.

    Padding may stand anywhere: every row's groups count from its own first real token. Positions are counted, not
    passed. The cache is a ``FoveateCache``, written in place by each call it is passed to.
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: FoveateConfig) -> None:
        super().__init__(config)
        self.model = LanguageModel(config.spec, config.vocab_size, theta=config.rope_theta, eps=config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size_of_tokens, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.embed_tokens = value

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
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits [B, T, V] of the new columns (the last ``logits_to_keep`` of them, if given), the loss if ``labels``.

        Args:
            input_ids: [B, T] token ids, or ``inputs_embeds`` [B, T, D].
            attention_mask: [B, T], or [B, seen + T] with the columns the cache has read; 0 is padding, in any place.
            labels: [B, T], shifted here; -100 is ignored.
            use_cache: default: the config's choice outside training.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise FoveateError("pass either input_ids or inputs_embeds")
        return_dict = kwargs.pop("return_dict", True)
        for name in UNSUPPORTED_OUTPUTS:
            if kwargs.pop(name, None):
                raise FoveateError(f"{name} is not supported: the streams of the levels differ in length")
        tokens = input_ids if input_ids is not None else inputs_embeds
        assert tokens is not None
        B, T = tokens.shape[:2]
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        cache = self._own_cache(past_key_values, use_cache, B)
        mask_BT = _new_columns(attention_mask, B, T, cache.seen if cache is not None else 0)
        keep = logits_to_keep if isinstance(logits_to_keep, int) else 0
        h_BTD = self.model(tokens, mask_BT, cache.steps if cache is not None else None, keep)
        if cache is not None:
            cache.note(T, mask_BT)
        if isinstance(logits_to_keep, Tensor):
            h_BTD = h_BTD[:, logits_to_keep]
        logits = self.lm_head(h_BTD)
        loss = None
        if labels is not None or kwargs.get("shift_labels") is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        output = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache if use_cache else None)
        return output if return_dict else output.to_tuple()

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

    def _own_cache(self, given: Any, use_cache: bool, batch: int) -> FoveateCache | None:
        if isinstance(given, FoveateCache):
            if given.batch_size != batch:
                raise FoveateError(f"past_key_values holds {given.batch_size} rows, the input has {batch}")
            return given
        if given is not None and given.get_seq_length():
            raise FoveateError(f"past_key_values is a {type(given).__name__} with content; use model.make_cache()")
        return self.make_cache(batch) if use_cache else None

    def _prepare_cache_for_generation(  # type: ignore[override]  # of what it may be passed only this matters
        self, generation_config: Any, model_kwargs: dict[str, Any], generation_mode: Any, batch_size: int, *args: Any
    ) -> None:
        if generation_config.cache_implementation not in (None, "dynamic"):
            raise FoveateError(
                f"cache_implementation={generation_config.cache_implementation!r} does not fit a multi-scale model; "
                f"leave it out"
            )
        given = model_kwargs.get("past_key_values")
        if given is None and generation_config.use_cache is not False:
            rows = batch_size * max(generation_config.num_beams, generation_config.num_return_sequences)
            model_kwargs["past_key_values"] = self.make_cache(rows)
            if generation_config.is_assistant:
                model_kwargs["past_key_values"].activate_past_recording()
        elif given is not None:
            given._is_user_defined = True

    def generate_batch(self, *args: Any, **kwargs: Any) -> Any:
        raise FoveateError("continuous batching needs a paged cache, which a multi-scale model has not; use generate")

    @property
    def init_continuous_batching(self) -> Any:
        raise AttributeError("continuous batching needs a paged cache, which a multi-scale model has not; use generate")


def _new_columns(attention_mask: Tensor | None, batch: int, columns: int, seen: int) -> Tensor | None:
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2:
        raise FoveateError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; pass [batch, columns] with 0 for padding: "
            f"what a position may see follows from the walk"
        )
    rows, width = attention_mask.shape
    if rows != batch or width not in (columns, seen + columns):
        raise FoveateError(
            f"attention_mask has shape {(rows, width)} for {batch} rows of {columns} columns after {seen} in the cache"
        )
    return attention_mask[:, width - columns :]
