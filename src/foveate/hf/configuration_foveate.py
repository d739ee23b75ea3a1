"""The configuration of a Foveate model, as transformers keeps it in ``config.json``."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from foveate.errors import FoveateError
from foveate.spec import HierarchySpec, default_feed_forward


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

    Raises:
        FoveateError: names the field, its value and the remedy.
    """

    model_type = "foveate"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012  # Trainer adds a list to it

    walk: str = "2@1 8@4 2@1"
    vocab_size: int = 32_000
    hidden_size: int = 256
    num_attention_heads: int = 4
    num_key_value_heads: int | None = None
    intermediate_size: int | None = None
    levels: dict | None = None
    pooling: str = "linear"
    expanding: str = "linear"
    max_position_embeddings: int = 2048
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    use_cache: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    num_hidden_layers: int | None = None

    def __post_init__(self, **kwargs) -> None:  # type: ignore[no-untyped-def]
        if self.vocab_size < 1:
            raise FoveateError(f"vocab_size is {self.vocab_size}; it must be at least 1")
        if self.max_position_embeddings < 1:
            raise FoveateError(f"max_position_embeddings is {self.max_position_embeddings}; it must be at least 1")
        if self.levels is not None:
            self.levels = {str(stride): dict(shape) for stride, shape in self.levels.items()}
        # what other tools read; the walk decides
        self.num_hidden_layers = self.spec.n_layers
        if self.intermediate_size is None:
            self.intermediate_size = default_feed_forward(self.hidden_size)
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        super().__post_init__(**kwargs)

    @property
    def spec(self) -> HierarchySpec:
        return HierarchySpec.parse(
            self.walk,
            width=self.hidden_size,
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            feed_forward=self.intermediate_size,
            levels=self.levels,
            pooling=self.pooling,
            expanding=self.expanding,
        )

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
