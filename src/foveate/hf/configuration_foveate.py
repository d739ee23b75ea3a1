"""The configuration of a Foveate model, as transformers keeps it in ``config.json``."""

from __future__ import annotations

import inspect
import math
import re
from functools import wraps
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from foveate.cost import LARGEST, Load, predict
from foveate.errors import FoveateError, first_line, shown
from foveate.hf.private import CACHE_NAMES
from foveate.spec import HierarchySpec, check_cap, default_feed_forward

MAX_PARAMETERS = 500_000_000_000
MAX_VOCABULARY = 1 << 24
MAX_LABELS = 1 << 16
REMOTE_FILE = "modeling_foveate.py"  # lies beside the weights, and finds this package for those who did not import it
AUTO_MAP = {
    auto: f"modeling_foveate.{name}"
    for auto, name in {
        "AutoConfig": "FoveateConfig",
        "AutoModel": "FoveateModel",
        "AutoModelForCausalLM": "FoveateForCausalLM",
        "AutoModelForSequenceClassification": "FoveateForSequenceClassification",
        "AutoModelForTokenClassification": "FoveateForTokenClassification",
    }.items()
}
# what transformers takes for models of several parts, or of layers that differ
OF_OTHER_MODELS = ("per_layer_config", "text_config", "text_encoder", "decoder", "generator")
OF_SPEC = (
    "walk",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "head_dim",
    "levels",
    "pooling",
    "expanding",
    "norms",
    "qk_norm",
    "biases",
    "hidden_act",
    "attn_logit_softcapping",
    "ropes",
)
INHERITED = {
    "architectures": list,
    "transformers_version": str,
    "output_hidden_states": bool,
    "return_dict": bool,
    "chunk_size_feed_forward": int,
    "id2label": dict,
    "label2id": dict,
    "problem_type": str,
}


def _in_one_line(config_class: type[FoveateConfig]) -> type[FoveateConfig]:
    """What transformers' own fields refuse is refused in one line too."""
    init: Any = config_class.__init__

    @wraps(init)
    def checked(self: FoveateConfig, **values: Any) -> None:
        try:
            init(self, **values)
        except FoveateError:
            raise
        except Exception as error:  # of which kind depends on the field
            raise FoveateError(f"the configuration is not one of a model: {first_line(error)}") from error

    config_class.__init__ = checked  # type: ignore[assignment, method-assign]
    return config_class


@_in_one_line
@strict
class FoveateConfig(PreTrainedConfig):
    """A walk and the shapes of its levels.

    Args:
        walk: for example ``"2@1 8@4 2@1"``; see ``foveate.spec``.
        hidden_size, num_attention_heads, num_key_value_heads, intermediate_size: of every level that ``levels`` does
            not override. Key-value heads default to all heads, the SwiGLU width to 8/3 of the hidden size.
        levels: shapes of single levels by stride, for example ``{"4": {"width": 512, "heads": 8}}``; keys are
            ``width``, ``heads``, ``kv_heads`` and ``feed_forward``.
        pooling: ``mean``, ``linear`` or ``attention``; expanding: ``repeat``, ``linear`` or ``attention``.
        max_position_embeddings: the context in tokens that the model was trained for.
        head_dim: of a head, where it is not the hidden size over the heads.
        norms, qk_norm, biases, hidden_act, attn_logit_softcapping: see ``foveate.spec.Block``.
        ropes: rotary positions by the names that runs of the walk give (``1@1:rope=local``; ``default`` is that of
            the others), each with ``theta``, and perhaps ``rotated`` and ``divide``; see ``foveate.spec.Rope``.
        final_logit_softcapping: logits x become c · tanh(x / c).

    Raises:
        FoveateError: names the field, its value and the remedy.
    """

    model_type = "foveate"
    keys_to_ignore_at_inference = list(CACHE_NAMES)  # noqa: RUF012  # Trainer adds a list to it

    walk: str = "2@1 8@4 2@1"
    vocab_size: int = 32_000
    hidden_size: int = 256
    num_attention_heads: int = 4
    num_key_value_heads: int | None = None
    intermediate_size: int | None = None
    levels: dict | None = None
    pooling: str = "mean"
    expanding: str = "repeat"
    max_position_embeddings: int = 2048
    head_dim: int | None = None
    norms: str = "pre"
    qk_norm: str | None = None
    biases: list | None = None
    hidden_act: str = "silu"
    attn_logit_softcapping: float | int | None = None
    final_logit_softcapping: float | int | None = None
    ropes: dict | None = None
    rope_theta: float | int = 10_000.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    use_cache: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    num_hidden_layers: int | None = None

    def __post_init__(self, **kwargs) -> None:  # type: ignore[no-untyped-def]
        self._check_numbers()
        self._check_others(kwargs)
        spec = self.spec
        params = predict(
            spec, Load(context=1, vocab_size=self.vocab_size, tied=bool(self.tie_word_embeddings))
        ).total.params
        if params > MAX_PARAMETERS:
            raise FoveateError(
                f"the configuration asks for {params:,} parameters, over {MAX_PARAMETERS:,}; "
                f"choose fewer layers in walk {shown(self.walk)}, or a smaller hidden_size, vocab_size or level"
            )
        if self.levels is not None:
            self.levels = {str(stride): dict(shape) for stride, shape in self.levels.items()}
        # what other tools read; the walk decides
        self.num_hidden_layers = spec.n_layers
        if self.intermediate_size is None:
            self.intermediate_size = default_feed_forward(self.hidden_size)
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        # names with an underscore are transformers' notes to itself
        super().__post_init__(**{name: value for name, value in kwargs.items() if not name.startswith("_")})
        self.auto_map = dict(AUTO_MAP)

    def _check_numbers(self) -> None:
        for name, high in (("vocab_size", MAX_VOCABULARY), ("max_position_embeddings", LARGEST)):
            _require(self, name, _is_whole(getattr(self, name), 1, high), f"a whole number from 1 to {high}")
        _require(self, "rope_theta", _is_number(self.rope_theta) and self.rope_theta > 0, "a number above 0")
        _require(self, "rms_norm_eps", _is_number(self.rms_norm_eps) and self.rms_norm_eps >= 0, "a number from 0")
        check_cap("final_logit_softcapping", self.final_logit_softcapping)
        usable = _is_number(self.initializer_range) and self.initializer_range >= 0
        _require(self, "initializer_range", usable, "a number from 0")
        for name in ("use_cache", "tie_word_embeddings"):
            _require(self, name, isinstance(getattr(self, name), bool), "true or false")
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            ids = getattr(self, name)
            several = ids if isinstance(ids, list) and name == "eos_token_id" else [ids]
            usable = all(token is None or _is_whole(token, -1, MAX_VOCABULARY) for token in several)
            _require(self, name, usable, f"a token's id, up to {MAX_VOCABULARY}")

    def _check_others(self, others: dict[str, Any]) -> None:
        """What is kept for other tools must not stand in for what the class is made of, nor be built at any size."""
        for name in others:
            known = inspect.getattr_static(type(self), name, None)
            settable = isinstance(known, property) and known.fset is not None
            if (known is not None and not settable and name != "model_type") or name in OF_OTHER_MODELS:
                raise FoveateError(f"the configuration sets {shown(name)}, which is no setting of a Foveate model")
        for name, kind in INHERITED.items():
            value = getattr(self, name)
            _require(self, name, value is None or isinstance(value, kind), f"{kind.__name__} or null")
        _require(self, "is_encoder_decoder", self.is_encoder_decoder is False, "false")
        for name in ("attn_implementation", "experts_implementation"):
            if others.get(name) not in (None, "sdpa"):
                raise FoveateError(f"{name} is {shown(others[name])}; it must be sdpa or null")
        quantization = others.get("quantization_config")
        if quantization is not None and not hasattr(quantization, "to_dict") and not isinstance(quantization, dict):
            raise FoveateError(f"quantization_config is {shown(quantization)}; it must be a mapping or null")
        labels = others.get("num_labels")
        if labels is not None and not _is_whole(labels, 0, MAX_LABELS):
            raise FoveateError(f"num_labels is {shown(labels)}; it must be a whole number up to {MAX_LABELS}")
        for dtype in (self.dtype, others.get("torch_dtype")):
            known = isinstance(dtype, str) and re.fullmatch("b?float(16|32|64)", dtype)
            if dtype is not None and not known and type(dtype).__name__ != "dtype":
                raise FoveateError(f"dtype is {shown(dtype)}; write float32, bfloat16 or float16")

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoConfig") -> None:
        """Nothing: transformers would copy this source beside the weights, where ``AUTO_MAP``'s own file lies."""

    @property
    def spec(self) -> HierarchySpec:
        return HierarchySpec.from_settings({name: getattr(self, name) for name in OF_SPEC})

    @property
    def hidden_state_strides(self) -> list[int]:
        """Tokens per item of each tensor in a forward's ``hidden_states``."""
        runs = self.spec.runs
        layers = [run.stride for run in runs for _ in range(run.layers)]
        return [1, *layers] if runs[-1].layers else [1, *layers, 1]

    @property
    def hidden_size_of_tokens(self) -> int:
        """Width of level 1, where tokens are embedded and predicted."""
        return self.spec.levels[0].width


def _require(config: FoveateConfig, name: str, holds: bool, wanted: str) -> None:
    if not holds:
        raise FoveateError(f"{name} is {shown(getattr(config, name))}; it must be {wanted}")


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _is_whole(value: Any, low: int, high: int) -> bool:
    return not isinstance(value, bool) and isinstance(value, int) and low <= value <= high
