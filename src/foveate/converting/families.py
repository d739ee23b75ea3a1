"""What each family of models has, and which of its settings are read: all others must be as they are by default.

What can be folded into weights is: norms that multiply by 1 + w, another scale of scores and a factor on rotary
positions (into what the queries are multiplied by), a scale of embeddings (into the embedding and, where the head is
tied to it, its inverse into the last norm). Channels of heads that turn in part are put where ``Rope`` has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from foveate.converting.rope import Turning, read_rope
from foveate.converting.source import Source, SourceLayer
from foveate.converting.weights import Folding, read_ends, read_layer
from foveate.errors import FoveateError, shown
from foveate.spec import ACTIVATIONS, FULL, Attention, Window
from foveate.spec.rope import DEFAULT, NONE

READ = {  # by every family
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "hidden_activation",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "rope_parameters",
}
# say nothing of what is computed
IDLE = {
    "initializer_range",
    "use_cache",
    "pretraining_tp",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "model_type",
    "return_dict",
    "output_hidden_states",
    "output_attentions",
    "chunk_size_feed_forward",
    "id2label",
    "label2id",
    "problem_type",
    "name_or_path",
    "_name_or_path",
    "auto_map",
    "quantization_config",
    "rope_theta",  # and the next: in rope_parameters, where transformers puts what they say
    "rope_scaling",
    "partial_rotary_factor",
    "rope_interleaved",
    "is_llama_config",
    "cache_implementation",
    "transformers.js_config",
    "_sliding_window_pattern",
    "sliding_window_pattern",
    "rope_local_base_freq",
    "unsloth_version",
    "base_model_tp_plan",  # and the next: how it is spread over devices
    "base_model_pp_plan",
    "base_model_ep_plan",
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """How the models of a model_type differ from a Llama.

    Attributes:
        reads: settings that it has beside those of all.
        block: settings of ``foveate.spec.Block`` under the names of ``FoveateConfig``.
        norms: what its norms of the stream are called: before and after attention, before and after the MLP.
        centred: its norms multiply by 1 + w.
        fused: its projections are fused as ours are.
        scaled: its embeddings are multiplied by the root of their width.
    """

    reads: tuple[str, ...] = ()
    block: Callable[[Any], dict[str, Any]]
    norms: tuple[str | None, ...] = ("input_layernorm", None, "post_attention_layernorm", None)
    centred: bool = False
    fused: bool = False
    scaled: bool = False


def _biases(c: Any) -> dict[str, Any]:
    return {
        "biases": ["qkv", "o"] * bool(getattr(c, "attention_bias", False)) + ["mlp"] * bool(getattr(c, "mlp_bias", 0))
    }


def _gemma(c: Any) -> dict[str, Any]:
    return {
        "norms": "both",
        "final_logit_softcapping": c.final_logit_softcapping,
        **_biases(c),
    }


SLIDING = ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types")
GEMMA_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
GEMMA_READS = (
    "attention_bias",
    "query_pre_attn_scalar",
    "sliding_window",
    "layer_types",
    "final_logit_softcapping",
)

FAMILIES = {
    "llama": Family(reads=("attention_bias", "mlp_bias"), block=_biases),
    "smollm3": Family(
        reads=("attention_bias", "mlp_bias", "no_rope_layers", "no_rope_layer_interval", *SLIDING), block=_biases
    ),
    "mistral": Family(reads=("sliding_window", "layer_types"), block=_biases),
    "qwen2": Family(reads=SLIDING, block=lambda c: {"biases": ["qkv"]}),
    "qwen3": Family(reads=("attention_bias", *SLIDING), block=lambda c: {"qk_norm": "head", **_biases(c)}),
    "olmo2": Family(
        reads=("attention_bias",),
        block=lambda c: {"norms": "post", "qk_norm": "all", **_biases(c)},
        norms=(None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
    ),
    "phi3": Family(reads=("sliding_window", "original_max_position_embeddings"), block=_biases, fused=True),
    "gemma2": Family(
        reads=(*GEMMA_READS, "attn_logit_softcapping"),
        block=lambda c: {"attn_logit_softcapping": c.attn_logit_softcapping, **_gemma(c)},
        norms=GEMMA_NORMS,
        centred=True,
        scaled=True,
    ),
    "gemma3_text": Family(
        reads=GEMMA_READS,  # transformers applies no soft cap to its scores, whatever the configuration says
        block=lambda c: {"qk_norm": "head", **_gemma(c)},
        norms=GEMMA_NORMS,
        centred=True,
        scaled=True,
    ),
}


def read_source(model: Any, context: int | None = None) -> Source:
    """What a model of transformers is made of; ``context``: see ``foveate.converting.convert``.

    Raises:
        FoveateError: it is of no known family, or has what a walk cannot represent.
    """
    c = model.config
    if c.model_type == "foveate":
        raise FoveateError("this is a Foveate model; train it further with foveate train --from")
    if c.model_type not in FAMILIES:
        kind = shown(c.model_type).strip("'")
        raise FoveateError(f"a model of type {kind} cannot be converted; these can: {', '.join(FAMILIES)}")
    family = FAMILIES[c.model_type]
    _check_settings(c, family)
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    settings = _sizes(c, head_dim) | family.block(c)
    turnings = _read_ropes(c, head_dim, context)
    settings["rope_theta"] = turnings[DEFAULT].rope.theta
    ropes = [
        turning.rope
        for name, turning in turnings.items()
        if name != DEFAULT or turning.rope.to_json().keys() > {"theta"}
    ]
    if ropes:
        settings["ropes"] = {rope.name: rope.to_json() for rope in ropes}
    old, layers = model.state_dict(), []
    scale = head_dim / getattr(c, "query_pre_attn_scalar", head_dim)
    for i in range(c.num_hidden_layers):
        rope = _rope_of(c, i, turnings)
        folding = Folding(
            heads=(c.num_attention_heads, c.num_key_value_heads, head_dim),
            rope=None if rope == NONE else turnings[rope].rope,
            turned=1.0 if rope == NONE else turnings[rope].scores,
            queries=scale**0.5,
            centred=family.centred,
        )
        weights = read_layer(old, f"model.layers.{i}", family.norms, folding, fused=family.fused)
        layers.append(SourceLayer(attention=_attention_of(c, i), rope=rope, weights=weights))
    limits = [turning.exact_to for turning in turnings.values() if turning.exact_to is not None]
    return Source(
        family=c.model_type,
        settings={name: value for name, value in settings.items() if value not in (None, [])},
        layers=tuple(layers),
        ends=read_ends(old, c, centred=family.centred, scaled=family.scaled),
        exact_to=min(limits, default=None),
    )


def _check_settings(c: Any, family: Family) -> None:
    """Refuse every setting that nothing here reads and that is not as its class has it by default."""
    defaults = {**vars(type(c)()), **{name: getattr(type(c), name, None) for name in ("is_encoder_decoder",)}}
    for name, value in sorted(vars(c).items()):
        known = name in READ or name in IDLE or name in family.reads or name.startswith("_")
        if known or value is None or (name in defaults and defaults[name] == value):
            continue
        if isinstance(value, int | float) and not value and not defaults.get(name):
            continue  # false, or a rate of nought, is as good as absent
        wanted = f", not {shown(defaults[name])}" if name in defaults else ", which is not known"
        raise FoveateError(f"a walk cannot be this {c.model_type}: {name} is {shown(value)}{wanted}")
    activation = getattr(c, "hidden_activation", None) or getattr(c, "hidden_act", None)
    if activation not in ACTIVATIONS:
        raise FoveateError(
            f"a walk cannot be this {c.model_type}: hidden_act is {shown(activation)}, not one of "
            f"{', '.join(ACTIVATIONS)}"
        )


def _sizes(c: Any, head_dim: int) -> dict[str, Any]:
    return {
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "intermediate_size": c.intermediate_size,
        "head_dim": None if head_dim * c.num_attention_heads == c.hidden_size else head_dim,
        "hidden_act": getattr(c, "hidden_activation", None) or c.hidden_act,
        "max_position_embeddings": c.max_position_embeddings,
        "rms_norm_eps": c.rms_norm_eps,
        "tie_word_embeddings": bool(c.tie_word_embeddings),
        "bos_token_id": c.bos_token_id,
        "eos_token_id": c.eos_token_id,
        "pad_token_id": c.pad_token_id,
    }


LOCAL = "local"


def _read_ropes(c: Any, head_dim: int, context: int | None) -> dict[str, Turning]:
    given = c.rope_parameters
    kinds = {DEFAULT: given}
    if "full_attention" in given:
        kinds = {DEFAULT: given["full_attention"], LOCAL: given["sliding_attention"]}
        if given["full_attention"] == given["sliding_attention"]:
            del kinds[LOCAL]
    original = getattr(c, "original_max_position_embeddings", None)
    read = {}
    for name, values in kinds.items():
        values = {"original_max_position_embeddings": original, **values} if original else dict(values)
        if values.get("rope_type", "default") not in ("yarn", "llama3", "longrope"):
            values.pop("original_max_position_embeddings", None)
        read[name] = read_rope(
            values, name=name, head_dim=head_dim, positions=c.max_position_embeddings, context=context
        )
    return read


def _rope_of(c: Any, i: int, turnings: dict[str, Turning]) -> str:
    without = getattr(c, "no_rope_layers", None)
    if without is not None and not without[i]:
        return NONE
    return LOCAL if LOCAL in turnings and c.layer_types[i] == "sliding_attention" else DEFAULT


def _attention_of(c: Any, i: int) -> Attention:
    window, types = getattr(c, "sliding_window", None), getattr(c, "layer_types", None)
    kind = types[i] if types is not None else ("full_attention" if window is None else "sliding_attention")
    if kind not in ("full_attention", "sliding_attention"):
        raise FoveateError(f"a walk cannot be this {c.model_type}: layer_types has {shown(kind)}")
    return Window(window=window) if kind == "sliding_attention" and window is not None else FULL
