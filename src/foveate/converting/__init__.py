"""Pretrained models brought in: a causal language model of a known family becomes a walk with its weights."""

from foveate.converting.conversion import convert, from_llama

__all__ = ["convert", "from_llama"]
