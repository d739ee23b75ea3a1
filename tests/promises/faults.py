"""A tiny Llama that keeps its promises, and the faults that are planted in its layer 1, each with who should notice."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

VOCAB = 37


def llama(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    size = {"intermediate_size": 24, "initializer_range": 0.3, "max_position_embeddings": 512}
    return LlamaForCausalLM(LlamaConfig(**{**shape, **size, "num_key_value_heads": 1, **changes})).eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    shape = {"vocab_size": VOCAB, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 512}
    return GPT2LMHeadModel(GPT2Config(**shape, initializer_range=0.3)).eval()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong, the promise that it breaks, and the layer it starts in."""

    what: str
    plant: Callable[[Any], Any]
    promise: str
    layer: str | None
    make: Callable[[], Any] = llama


def override(module: nn.Module, forward: Callable[..., Any]) -> None:
    """``forward(module, original, ...)`` instead of the module's own, which copies of the module have too."""
    kind = type(module)
    methods = {"forward": lambda self, *args, **kwargs: forward(self, partial(kind.forward, self), *args, **kwargs)}
    functools.update_wrapper(methods["forward"], kind.forward)
    module.__class__ = type(kind.__name__, (kind,), methods)


def after(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """What a module puts out, changed."""

    def changed(self: nn.Module, original: Any, *args: Any, **kwargs: Any) -> Any:
        out = original(*args, **kwargs)
        return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

    override(module, changed)


def attention_of(model: Any) -> nn.Module:
    return model.model.layers[1].self_attn


def mlp_of(model: Any) -> nn.Module:
    return model.model.layers[1].mlp


def sees_the_next_token(model: Any) -> None:
    def forward(self: Any, original: Any, hidden_states: Tensor, **kwargs: Any) -> Any:
        T = hidden_states.shape[1]
        mask = torch.ones(T, T, dtype=torch.bool).tril(1)[None, None]
        return original(hidden_states, **{**kwargs, "attention_mask": mask})

    override(attention_of(model), forward)


def normalises_over_the_text(model: Any) -> None:
    after(model.model.layers[1].input_layernorm, lambda x_BTD: x_BTD - 0.1 * x_BTD.mean(1, keepdim=True))


def mixes_rows(model: Any) -> None:
    after(mlp_of(model), lambda x_BTD: x_BTD - 0.1 * x_BTD.mean(0, keepdim=True))


def favours_the_first_row(model: Any) -> None:
    def change(x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD.clone()
        x_BTD[0] *= 1.1
        return x_BTD

    after(mlp_of(model), change)


def scales_by_columns(model: Any) -> None:
    after(mlp_of(model), lambda x_BTD: x_BTD * (1 + 0.01 * x_BTD.shape[1]))


def forgets_mask(model: Any) -> None:
    def forward(self: Any, original: Any, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        ones = torch.ones_like(attention_mask) if attention_mask is not None else None
        return original(*args, attention_mask=ones, **kwargs)

    override(model.model, forward)


def counts_columns(model: Any) -> None:
    """Absolute positions that count padding."""

    def forward(self: Any, original: Any, position_ids: Tensor) -> Tensor:
        return original(torch.arange(position_ids.shape[-1])[None] if position_ids.shape[-1] > 1 else position_ids)

    override(model.transformer.wpe, forward)


def begins_positions_anew(model: Any) -> None:
    def forward(self: Any, original: Any, x: Tensor, position_ids: Tensor) -> Any:
        return original(x, position_ids - position_ids[:, :1])

    override(model.model.rotary_emb, forward)


def cache_in(given: dict[str, Any]) -> Any:
    """The cache that a layer is given: transformers 5.24 has another name for it."""
    return given.get("cache", given.get("past_key_values"))


def with_cache(model: Any, change: Callable[[Any], None]) -> None:
    """``change(layer)`` of the cache of layer 1 whenever layer 1 has been read."""

    def forward(self: Any, original: Any, *args: Any, **kwargs: Any) -> Any:
        out = original(*args, **kwargs)
        if (cache := cache_in(kwargs)) is not None:
            change(cache.layers[1])
        return out

    override(attention_of(model), forward)


def forgets_the_first_key(model: Any) -> None:
    def change(layer: Any) -> None:
        if layer.keys.shape[-2] > 1:
            layer.keys[..., 0, :] = 0

    with_cache(model, change)


def writes_chunks_backwards(model: Any) -> None:
    def forward(self: Any, original: Any, hidden_states: Tensor, **kwargs: Any) -> Any:
        cache = cache_in(kwargs)
        before = cache.get_seq_length() if cache is not None else 0
        out = original(hidden_states, **kwargs)
        if before and hidden_states.shape[1] > 1:
            out = (out[0].roll(1, 1), *out[1:])
        return out

    override(attention_of(model), forward)


def detaches_cache(model: Any) -> None:
    def change(layer: Any) -> None:
        layer.keys, layer.values = layer.keys.detach(), layer.values.detach()

    with_cache(model, change)


def rounds_cache(model: Any) -> None:
    def change(layer: Any) -> None:
        layer.keys = layer.keys.bfloat16().to(layer.keys.dtype)

    with_cache(model, change)


def on_cache_layer(model: Any, **methods: Callable[..., Any]) -> None:
    def change(layer: Any) -> None:
        for name, method in methods.items():
            setattr(layer, name, MethodType(method, layer))

    with_cache(model, change)


def reorders_one_layer_less(model: Any) -> None:
    on_cache_layer(model, reorder_cache=lambda self, beam_idx: None)


def crops_from_the_front(model: Any) -> None:
    def crop(self: Any, tokens: int) -> None:
        self.keys, self.values = self.keys[..., -tokens:, :], self.values[..., -tokens:, :]

    on_cache_layer(model, crop=crop)


def packs_without_borders(model: Any) -> None:
    def forward(self: Any, original: Any, *args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        if position_ids is not None:  # as a cache makes the masks leave positions out of account
            kwargs.update(use_cache=True)
        return original(*args, position_ids=position_ids, **kwargs)

    override(model.model, forward)


def scales_ids_alone(model: Any) -> None:
    def forward(self: Any, original: Any, input_ids: Any = None, inputs_embeds: Any = None, **kwargs: Any) -> Any:
        if inputs_embeds is None:
            inputs_embeds = 1.1 * self.embed_tokens(input_ids)
        return original(inputs_embeds=inputs_embeds, **kwargs)

    override(model.model, forward)


def loses_shift(model: Any) -> None:
    def loss(logits: Tensor, labels: Tensor, vocab_size: int, **kwargs: Any) -> Tensor:
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    model.loss_function = loss


def counts_ignored_labels(model: Any) -> None:
    def loss(logits: Tensor, labels: Tensor, vocab_size: int, **kwargs: Any) -> Tensor:
        summed = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
        return summed / labels[:, 1:].numel()

    model.loss_function = loss


class Biased(LlamaForCausalLM):
    """A part of layer 1 is in no checkpoint."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        mlp = self.model.layers[1].mlp
        mlp.register_buffer("bias", torch.randn(16), persistent=False)
        override(mlp, lambda self, original, x: original(x) + self.bias)


def leaves_a_part_out(model: Any) -> Any:
    torch.manual_seed(0)
    return Biased(model.config).eval()


def drops_out(model: Any) -> None:
    after(mlp_of(model), lambda x_BTD: nn.functional.dropout(x_BTD, 0.1, training=True))


def remembers_the_text_before(model: Any) -> None:
    state: list[Tensor] = []

    def change(x_BTD: Tensor) -> Tensor:
        state.append(x_BTD.mean().detach())
        return x_BTD + 0.01 * state[-2] if len(state) > 1 else x_BTD

    after(mlp_of(model), change)


def skips_when_checkpointing(model: Any) -> None:
    mlp = mlp_of(model)
    mlp.__dict__["layer"] = model.model.layers[1]  # not as a part of it
    override(mlp, lambda self, original, x: original(x) * (0.9 if self.layer.gradient_checkpointing else 1.0))


def keeps_its_old_head(model: Any) -> None:
    model.set_output_embeddings = lambda value: None


def generates_from_wrong_positions(model: Any) -> None:
    original = model.prepare_inputs_for_generation

    def prepare(*args: Any, **kwargs: Any) -> Any:
        inputs = original(*args, **kwargs)
        if inputs["input_ids"].shape[1] == 1:
            inputs["position_ids"] = inputs["position_ids"] + 1
        return inputs

    model.prepare_inputs_for_generation = prepare


def differs_when_compiled(model: Any) -> None:
    after(mlp_of(model), lambda x_BTD: x_BTD * (0.9 if torch.compiler.is_compiling() else 1.0))


def counts_in_half_precision(model: Any) -> None:
    def forward(self: Any, original: Any, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = position_ids[..., None].to(x.dtype) * self.inv_freq.to(x.dtype)
        both = torch.cat((angles, angles), -1)
        return both.cos(), both.sin()

    override(model.model.rotary_emb, forward)


ATTENTION, MLP = "model.layers.1.self_attn", "model.layers.1.mlp"
FAULTS = (
    Fault(what="sees the next token", plant=sees_the_next_token, promise="causal", layer=ATTENTION),
    Fault(
        what="normalises over the text",
        plant=normalises_over_the_text,
        promise="causal-gradient",
        layer="model.layers.1.input_layernorm",
    ),
    Fault(what="mixes rows", plant=mixes_rows, promise="row-alone", layer=MLP),
    Fault(what="favours the first row", plant=favours_the_first_row, promise="batch-order", layer=MLP),
    Fault(what="scales by columns", plant=scales_by_columns, promise="right-padding", layer=MLP),
    Fault(what="forgets the mask", plant=forgets_mask, promise="left-padding", layer="model.layers.0.self_attn"),
    Fault(what="counts padding", plant=counts_columns, promise="left-padding", layer="transformer.wpe", make=gpt2),
    Fault(what="begins positions anew", plant=begins_positions_anew, promise="cached", layer="model.rotary_emb"),
    Fault(what="forgets the first key", plant=forgets_the_first_key, promise="cached", layer=ATTENTION),
    Fault(what="rounds its cache", plant=rounds_cache, promise="cached", layer=ATTENTION),
    Fault(what="writes chunks backwards", plant=writes_chunks_backwards, promise="chunked", layer=ATTENTION),
    Fault(what="detaches its cache", plant=detaches_cache, promise="split-gradients", layer=ATTENTION),
    Fault(what="reorders one layer less", plant=reorders_one_layer_less, promise="reordered", layer=ATTENTION),
    Fault(what="crops from the front", plant=crops_from_the_front, promise="cropped", layer=ATTENTION),
    Fault(
        what="packs without borders", plant=packs_without_borders, promise="packed", layer="model.layers.0.self_attn"
    ),
    Fault(what="scales ids alone", plant=scales_ids_alone, promise="inputs-embeds", layer="model"),
    Fault(what="loses the shift of labels", plant=loses_shift, promise="labels", layer=None),
    Fault(what="counts ignored labels", plant=counts_ignored_labels, promise="ignored-labels", layer=None),
    Fault(what="leaves a part out of its checkpoint", plant=leaves_a_part_out, promise="saved", layer=MLP),
    Fault(what="drops out in evaluation", plant=drops_out, promise="deterministic", layer=MLP),
    Fault(what="remembers the text before", plant=remembers_the_text_before, promise="deterministic", layer=MLP),
    Fault(what="skips when checkpointing", plant=skips_when_checkpointing, promise="checkpointed", layer=MLP),
    Fault(what="keeps its old head", plant=keeps_its_old_head, promise="resized", layer=None),
    Fault(what="generates from wrong positions", plant=generates_from_wrong_positions, promise="generate", layer=None),
    Fault(what="differs when compiled", plant=differs_when_compiled, promise="compiled", layer=None),
    Fault(what="counts in half precision", plant=counts_in_half_precision, promise="half-precision", layer=None),
)


def planted(fault: Fault) -> Any:
    model = fault.make()
    return fault.plant(model) or model
