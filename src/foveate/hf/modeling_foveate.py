"""Foveate as a Hugging Face model: the backbone, and the causal language model on it.

Shape legend: B batch rows, T new columns, D width, V vocabulary.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers import initialization as init
from transformers.utils import can_return_tuple

from foveate.errors import FoveateError
from foveate.hf.cache import FoveateCache
from foveate.hf.configuration_foveate import REMOTE_FILE, FoveateConfig
from foveate.hf.foreign import adopt
from foveate.hf.generation import FoveateGenerationMixin
from foveate.hf.inputs import counts_on, new_columns, numbered, refuse_token_types, refuse_unknown
from foveate.hf.outputs import BackboneOutput, CausalLMOutput, Features
from foveate.hf.packed import NAMES as PACKING
from foveate.hf.packed import documents_of, within_documents
from foveate.hf.private import CACHE, CACHE_NAMES, attention_of, take_cache
from foveate.hf.whole_graph import with_every_parameter
from foveate.model.decoder import Decoder
from foveate.model.init import init_weights
from foveate.model.lm import chunk_of, read

LOSS_ARGUMENTS = ("num_items_in_batch", "ignore_index", "shift_labels")


class FoveatePreTrainedModel(PreTrainedModel):
    config: FoveateConfig
    config_class = FoveateConfig
    base_model_prefix = "model"
    model_tags = ["foveate", "multi-scale"]  # noqa: RUF012  # of the model card that push_to_hub writes
    supports_gradient_checkpointing = True
    _no_split_modules = ["Stack", "Downsample", "Upsample"]  # noqa: RUF012
    _skip_keys_device_placement = list(CACHE_NAMES)  # noqa: RUF012
    _supports_sdpa = True
    _can_compile_fullgraph = False
    _is_stateful = False

    def __init__(self, config: FoveateConfig) -> None:
        super().__init__(config)
        _only_sdpa(attention_of(config))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        init_weights(module, self.config.initializer_range, init)

    def set_attn_implementation(self, attn_implementation: Any, *args: Any, **kwargs: Any) -> None:
        _only_sdpa(attn_implementation)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As usual, with the file by which ``trust_remote_code`` loads it."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            shutil.copyfile(Path(__file__).with_name("remote_code.py"), Path(save_directory) / REMOTE_FILE)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModel") -> None:
        """Nothing: transformers would copy this source beside the weights, where ``AUTO_MAP``'s own file lies."""

    @property
    def backbone(self) -> FoveateModel:
        base: Any = self.base_model
        return base

    def get_decoder(self) -> FoveateModel:
        return self.backbone

    def get_input_embeddings(self) -> nn.Embedding:
        return self.backbone.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.backbone.embed_tokens = value  # type: ignore[assignment]

    def make_cache(self, batch: int = 1, max_length: int | None = None) -> FoveateCache:
        """An empty cache for ``batch`` rows; pass it as ``past_key_values``, or ``cache``.

        With ``max_length``, the most tokens that a row will have, its memory is taken at once and never moves, as
        ``foveate.compile_decoding`` needs it; without, it grows.
        """
        return FoveateCache(self.backbone.decoder.make_cache(batch, max_length))

    def own_cache(self, given: Any, use_cache: bool, *batch: int, max_length: int | None = None) -> FoveateCache | None:
        """The cache given, ours of the first ``batch`` rows instead of a foreign one, or None if none is wanted."""
        if isinstance(given, FoveateCache):
            if given.batch_size not in batch:
                raise FoveateError(f"past_key_values holds {given.batch_size} rows, the input has {batch[0]}")
            return given
        if given is not None and (not isinstance(given, Cache) or given.get_seq_length()):
            return adopt(given, self.backbone.decoder, batch[0])
        return self.make_cache(batch[0], max_length) if use_cache else None


def _only_sdpa(attention: Any) -> None:
    if attention not in (None, "sdpa"):
        raise FoveateError(
            f"attn_implementation={attention!r}: a multi-scale model computes attention in one way; leave it out"
        )


class FoveateModel(FoveatePreTrainedModel):
    """The backbone: tokens in, the features from which heads predict out.

    Padding may stand anywhere: every row's groups count from its own first real token. Positions are counted, not
    passed. The cache is a ``FoveateCache``, written in place by each call it is passed to.
    """

    def __init__(self, config: FoveateConfig) -> None:
        super().__init__(config)
        spec = config.spec
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size_of_tokens)
        self.decoder = Decoder(spec, theta=config.rope_theta, eps=config.rms_norm_eps)
        self.chunk = chunk_of(spec)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: FoveateCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        cache: FoveateCache | None = None,
        seq_idx: Tensor | None = None,
        keep: int = 0,
        for_head: bool = False,
        **kwargs: Any,
    ) -> BackboneOutput | Features | tuple[Any, ...]:
        """Features [B, T, D] of the new columns as ``last_hidden_state``, zeros at padding.

        Args:
            input_ids: [B, T] token ids, or ``inputs_embeds`` [B, T, D].
            attention_mask: [B, T], or [B, seen + T] with the columns the cache has read; 0 is padding, in any place;
                1 a token, or 1, 2, 3, … the tokens of several documents in a row.
            position_ids: [B, T]; not needed. The model counts positions itself: these may say the same, or begin with
                0 at each of several documents in a row, and are refused where they say anything else.
            cache, past_key_values: two names of one argument, what ``make_cache`` makes; written in place.
            use_cache: default: the config's choice outside training.
            output_hidden_states: also return the embeddings, the output of every layer in the order of the walk, and
                last the normalised features, in the last layer's stead if that is on level 1. A layer on level 1 puts
                out [B, T, D]; one of stride k [B, S, D], of the units that this call completes in each row, from the
                left: unit u is of the row's tokens k·u … k·u + k - 1. ``config.hidden_state_strides`` names the
                strides. Padding is zeros.
            seq_idx: [B, T], the number of each token's document; also ``cu_seq_lens_q``, ``cu_seq_lens_k`` (offsets in
                the flattened batch), ``max_length_q`` and ``max_length_k``: see ``foveate.hf.packed``.
            keep: features of the last so many columns alone; 0 for all.
            for_head: return plain ``Features``, of the same names.

        Raises:
            FoveateError: an argument is unknown, contradicts another, or asks for what a multi-scale model has not.
        """
        self._refuse(kwargs)
        if (input_ids is None) == (inputs_embeds is None):
            raise FoveateError("pass either input_ids or inputs_embeds")
        tokens = input_ids if input_ids is not None else inputs_embeds
        assert tokens is not None
        if tokens.dim() != (2 if input_ids is not None else 3):
            raise FoveateError(f"input_ids or inputs_embeds has shape {tuple(tokens.shape)}; pass [batch, columns]")
        B, T = tokens.shape[:2]
        given = take_cache({"cache": cache, "past_key_values": past_key_values})
        wants_cache = self._wants_cache(use_cache, given)
        own = self.own_cache(given, wants_cache, B)
        seen, steps = (own.seen, own.steps) if own is not None else (0, None)
        mask_BT = new_columns(attention_mask, B, T, seen)
        documents_BT = self._find_documents(tokens, mask_BT, position_ids, own, seq_idx=seq_idx, **kwargs)
        wanted = output_hidden_states if output_hidden_states is not None else self.config.output_hidden_states
        if documents_BT is not None:
            if use_cache or given is not None:
                raise FoveateError("use_cache: several documents in a row leave no cache to go on from; pass False")
            if wanted:
                raise FoveateError("output_hidden_states: give each document a row of its own; units are a row's")
            own = steps = None
        if own is not None:
            own.expect(min(keep or T, T))  # who asks for the logits of several tokens may take as many back
        streams: list[Tensor] | None = [] if wanted else None
        h_BTD = read(
            self.embed_tokens, self.decoder, tokens, mask_BT, steps, keep, streams, documents_BT, chunk=self.chunk
        )
        if own is not None:
            own.note(T, mask_BT)
        h_BTD, hidden = with_every_parameter(h_BTD, self), None if streams is None else tuple(streams)
        returned = own if wants_cache else None
        if for_head:
            return Features(h_BTD, returned, hidden, documents_BT)
        named: dict[str, Any] = {CACHE: returned}
        return BackboneOutput(last_hidden_state=h_BTD, hidden_states=hidden, documents=documents_BT, **named)

    def _refuse(self, more: dict[str, Any]) -> None:
        if more.pop("output_attentions", None) or self.config.output_attentions:
            raise FoveateError("output_attentions is not supported: attention is computed without its weights")
        refuse_token_types(more.pop("token_type_ids", None))
        if more.pop("is_causal", True) is False:
            raise FoveateError("is_causal=False: a multi-scale model reads from left to right; leave it out")
        refuse_unknown(more, FoveateModel.forward, *PACKING)

    def _wants_cache(self, use_cache: bool | None, given: Any) -> bool:
        if use_cache is None:
            return self.config.use_cache and not self.training
        if use_cache and self.training and self._is_checkpointed():
            if given is not None:
                raise FoveateError("past_key_values: layers that are computed again in the backward pass can use none")
            return False  # as transformers' own models
        return use_cache

    def _is_checkpointed(self) -> bool:
        return any(getattr(step, "gradient_checkpointing", False) for step in self.decoder.steps)

    def _find_documents(
        self,
        tokens: Tensor,
        mask_BT: Tensor | None,
        position_ids: Tensor | None,
        cache: FoveateCache | None,
        **packing: Any,
    ) -> Tensor | None:
        """The document [B, T] of each token where rows hold several; None where each is one text.

        Raises:
            FoveateError: several, after what a cache has read; positions that neither go on nor start over.
        """
        seen = cache.seen if cache is not None else 0
        lengths = cache.steps.lengths if cache is not None else 0
        T = tokens.shape[1]
        if position_ids is not None:
            if counts_on(position_ids, mask_BT, lengths, T, seen):
                position_ids = None
            elif seen:
                raise FoveateError(
                    f"position_ids do not go on from the {seen} columns that the cache has read: a multi-scale model "
                    f"counts positions itself; leave position_ids out"
                )
        documents_BT = documents_of(packing, position_ids, numbered(mask_BT), mask_BT, tokens)
        if documents_BT is not None and seen:
            raise FoveateError(
                f"several documents in a row cannot follow the {seen} columns that the cache has read; "
                f"give each a row of its own"
            )
        return documents_BT


class FoveateForCausalLM(FoveatePreTrainedModel, FoveateGenerationMixin):
    """A multi-scale language model: ``config.walk`` says at which resolutions it works."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: FoveateConfig) -> None:
        super().__init__(config)
        self.model = FoveateModel(config)
        self.lm_head = nn.Linear(config.hidden_size_of_tokens, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
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
        cache: FoveateCache | None = None,
        seq_idx: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutput | tuple[Any, ...]:
        """Logits [B, T, V] of the new columns, the loss if ``labels``; arguments not listed are ``FoveateModel``'s.

        Args:
            labels: [B, T], shifted here; -100 is ignored, and so is the first token of each further document in a row.
                Or ``shift_labels`` [B, T], the token that follows each.
            logits_to_keep: logits of the last so many columns alone, or of the columns that a tensor indexes.
            num_items_in_batch: what the summed loss is divided by, instead of the number of its tokens.
        """
        loss_arguments = {name: kwargs.pop(name) for name in LOSS_ARGUMENTS if name in kwargs}
        refuse_unknown(kwargs, FoveateForCausalLM.forward, *PACKING, "token_type_ids", "is_causal", "output_attentions")
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            cache=cache,
            seq_idx=seq_idx,
            keep=logits_to_keep if isinstance(logits_to_keep, int) else 0,
            for_head=True,
            **kwargs,
        )
        h_BTD = outputs.last_hidden_state
        if isinstance(logits_to_keep, Tensor):
            h_BTD = h_BTD[:, logits_to_keep]
        logits = self.lm_head(h_BTD)
        if self.config.final_logit_softcapping is not None:
            cap = self.config.final_logit_softcapping
            logits = torch.tanh(logits / cap) * cap
        loss = None
        if labels is not None or loss_arguments.get("shift_labels") is not None:
            if labels is not None and logits.shape[1] != labels.shape[1]:
                raise FoveateError("logits_to_keep: the loss needs the logits of all columns; leave it or labels out")
            if labels is not None:
                labels = within_documents(labels, outputs.documents, loss_arguments.get("ignore_index", -100))
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **loss_arguments)
        named: dict[str, Any] = {CACHE: outputs.cache}
        return CausalLMOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states, **named)

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
