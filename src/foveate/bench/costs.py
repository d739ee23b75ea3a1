"""What a measured model should cost by its walk."""

from __future__ import annotations

from typing import Any

from foveate.cost import Cost, Load, predict
from foveate.spec import HierarchySpec


def cost_of(
    model: Any, spec: HierarchySpec | None, *, context: int, batch: int = 1, dtype: str = "float32"
) -> Cost | None:
    """The prediction of ``foveate.cost`` for a model like ``spec``; None for one that is like no walk."""
    if spec is None:
        return None
    config = model.config.get_text_config()
    tied = getattr(config, "tie_word_embeddings", True)
    load = Load(context=context, vocab_size=config.vocab_size, batch=batch, dtype=dtype, tied=tied)
    return predict(spec, load)


def dtype_name(bf16: bool) -> str:
    """Of what a training step computes in."""
    return "bfloat16" if bf16 else "float32"
