"""Small models of transformers' own classes with random settings, and those classes computing in fp64 throughout."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch.overrides import TorchFunctionMode

NUMBER = 20


class Double(TorchFunctionMode):
    """Where code of transformers asks for single precision, whatever the model's, it gets double."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            return args[0].double()
        swap = lambda value: torch.float64 if value is torch.float32 else value  # noqa: E731
        return func(*map(swap, args), **{name: swap(value) for name, value in (kwargs or {}).items()})


def _shape(r: random.Random, head_dim: bool = False) -> dict[str, Any]:
    kv = r.choice([1, 2, 3])
    heads = kv * r.choice([1, 2])
    d = r.choice([8, 12, 16])
    shape = {
        "vocab_size": r.randrange(40, 90),
        "hidden_size": heads * (r.choice([4, 10, 14]) if head_dim else d),
        "intermediate_size": r.randrange(20, 70),
        "num_hidden_layers": r.choice([2, 3, 5]),
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "max_position_embeddings": 64,
        "rms_norm_eps": r.choice([1e-5, 1e-6]),
        "tie_word_embeddings": r.random() < 0.5,
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return shape | ({"head_dim": d} if head_dim else {})


def _rope(r: random.Random, kinds: tuple[str, ...]) -> dict[str, Any]:
    theta, kind = r.choice([100.0, 10_000.0, 500_000.0]), r.choice(kinds)
    more: dict[str, dict[str, Any]] = {
        "default": {},
        "linear": {"factor": r.choice([2.0, 4.0])},
        "dynamic": {"factor": 2.0},
        "llama3": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": r.choice([16, 64]),
        },
        "yarn": {
            "factor": r.choice([2.0, 8.0]),
            "original_max_position_embeddings": 16,
            "beta_fast": r.choice([32.0, 4.0]),
            **r.choice([{}, {"attention_factor": 1.3}, {"mscale": 0.7, "mscale_all_dim": 1.1}]),
        },
    }
    return {"rope_type": kind, "rope_theta": theta, **more[kind]}


ALL = ("default", "linear", "dynamic", "llama3", "yarn")


def _sliding(r: random.Random) -> dict[str, Any]:
    if r.random() < 0.4:
        return {}
    return {"use_sliding_window": True, "sliding_window": r.choice([3, 7]), "max_window_layers": r.choice([0, 1])}


def llama(r: random.Random) -> Any:
    more = {"attention_bias": r.random() < 0.3, "mlp_bias": r.random() < 0.3, "hidden_act": r.choice(["silu", "gelu"])}
    shape = _shape(r, head_dim=r.random() < 0.4)
    return transformers.LlamaConfig(**shape, **more, rope_parameters=_rope(r, ALL))


def smollm3(r: random.Random) -> Any:
    more = {
        "attention_bias": r.random() < 0.3,
        "mlp_bias": r.random() < 0.3,
        "no_rope_layer_interval": r.choice([2, 3]),
    }
    return transformers.SmolLM3Config(**_shape(r), **more, **_sliding(r), rope_parameters=_rope(r, ALL))


def mistral(r: random.Random) -> Any:
    window = r.choice([None, 3, 9])
    return transformers.MistralConfig(**_shape(r, True), sliding_window=window, rope_parameters=_rope(r, ALL))


def qwen2(r: random.Random) -> Any:
    return transformers.Qwen2Config(**_shape(r), **_sliding(r), rope_parameters=_rope(r, ALL))


def qwen3(r: random.Random) -> Any:
    more = {"attention_bias": r.random() < 0.3}
    return transformers.Qwen3Config(**_shape(r, True), **_sliding(r), **more, rope_parameters=_rope(r, ALL))


def olmo2(r: random.Random) -> Any:
    return transformers.Olmo2Config(**_shape(r), attention_bias=r.random() < 0.3, rope_parameters=_rope(r, ALL))


def phi3(r: random.Random) -> Any:
    shape = _shape(r)
    d, share = shape["hidden_size"] // shape["num_attention_heads"], r.choice([0.5, 1.0])
    pairs = int(d * share) // 2
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": share}
    if r.random() < 0.6:
        rope |= {
            "rope_type": "longrope",
            "short_factor": [r.uniform(1, 2) for _ in range(pairs)],
            "long_factor": [r.uniform(2, 9) for _ in range(pairs)],
            "original_max_position_embeddings": 48,
        }
    more = {"sliding_window": r.choice([None, 5]), "original_max_position_embeddings": 48}
    return transformers.Phi3Config(**shape, **more, rope_parameters=rope)


def _gemma(r: random.Random) -> dict[str, Any]:
    return {
        "attention_bias": r.random() < 0.3,
        "query_pre_attn_scalar": r.choice([5, 16, 24]),
        "sliding_window": r.choice([3, 8]),
        "attn_logit_softcapping": r.choice([None, 1.5, 50.0]),
        "final_logit_softcapping": r.choice([None, 3.0]),
    }


def gemma2(r: random.Random) -> Any:
    return transformers.Gemma2Config(**_shape(r, True), **_gemma(r), rope_parameters=_rope(r, ("default", "linear")))


def gemma3(r: random.Random) -> Any:
    rope = {"sliding_attention": _rope(r, ("default",)), "full_attention": _rope(r, ("default", "linear"))}
    pattern = r.choice([2, 3])
    shape, more = _shape(r, True), _gemma(r) | {"attn_logit_softcapping": None}
    return transformers.Gemma3TextConfig(**shape, **more, sliding_window_pattern=pattern, rope_parameters=rope)


CONFIGS: dict[str, Callable[[random.Random], Any]] = {
    "Llama": llama,
    "SmolLM3": smollm3,
    "Mistral": mistral,
    "Qwen2": qwen2,
    "Qwen3": qwen3,
    "OLMo2": olmo2,
    "Phi-3": phi3,
    "Gemma 2": gemma2,
    "Gemma 3": gemma3,
}


def make_source(config: Any, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A model all of whose parameters are random: what starts at zero or one would hide its part."""
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    torch.set_default_dtype(dtype)  # what is made from plain numbers
    try:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3 if "norm" in name or "bias" in name else 0.15)
    return model


def worst_errors(family: str, number: int = NUMBER) -> tuple[float, float, float]:
    """Over ``number`` configurations, the worst error of logits in fp64 and in fp32, of the largest logit, and the
    smallest spread of logits."""
    from foveate import convert

    worst, spread = {torch.float64: 0.0, torch.float32: 0.0}, float("inf")
    for seed in range(number):
        for dtype in worst:
            config = CONFIGS[family](random.Random(f"{family} {seed}"))
            with Double() if dtype == torch.float64 else torch.no_grad():
                source = make_source(config, seed, dtype)
            ids = torch.randint(0, config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(seed))
            with torch.no_grad():
                with Double() if dtype == torch.float64 else torch.no_grad():
                    expected = source(ids).logits
                actual = convert(source)(ids).logits
            assert expected.dtype == dtype
            worst[dtype] = max(worst[dtype], ((actual - expected).abs().max() / expected.abs().max()).item())
            spread = min(spread, expected.std().item())
    return worst[torch.float64], worst[torch.float32], spread
