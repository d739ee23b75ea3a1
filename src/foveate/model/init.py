"""How a model starts: what its parameters are before training."""

from __future__ import annotations

from typing import Any

from torch import nn

from foveate.model.fovea import GroupPool
from foveate.model.resample import Downsample, Lookup, Upsample

SELF_LOGIT = 10.0


def branch_std(std: float, width: int, depth: int) -> float:
    """At which the last matrix of a residual branch starts, one of 2·``depth`` on a stream of ``width``."""
    return max(std / (2 * depth) ** 0.5, (width * depth) ** -0.5)


def init_weights(module: nn.Module, std: float, init: Any = nn.init) -> None:
    """Initialise a module's parameters, its children first; ``init`` has the functions of ``torch.nn.init``.

    Nothing may hang on a module that holds no parameters itself, such as a layer: transformers passes over those.

    Matrices are normal with ``std``. What a coarser level adds to a finer one starts at zero, so that a fresh hierarchy
    is its finer layers. Every level is a stream of its own, to which its n layers, in however many runs, add their
    residual branches: the last matrix of a branch starts at 1 / √(width · n) where that is more than std / √(2·n). The
    scale of a stream then does not depend on depth, and a fresh hierarchy is a fresh model of its finer layers (0.02
    bits per byte for 30 layers of width 128 after 1M tokens and one seed, against 0.02 for all: see docs/results.md).

    Embeddings of narrow models start larger. Adam moves every weight by about the learning rate a step, and the first
    thing a tied embedding learns is how frequent each token is: all embeddings move the same way, and in a narrow
    model, whose rate is high, by more than the differences between them; a normalised stream then hardly tells tokens
    apart (0.14 to 0.16 bits per byte at width 128 after 1M tokens, see docs/results.md). The larger they start, the
    more a tied head expects the token just read to come again: with a logit of at most width · std, which this makes
    ``SELF_LOGIT`` where it is larger than ``std`` gives.
    """
    if isinstance(module, nn.Embedding):
        init.normal_(module.weight, 0.0, max(std, SELF_LOGIT / module.embedding_dim))
    elif isinstance(module, nn.Linear):
        depth = getattr(module, "depth", None)
        init.normal_(module.weight, 0.0, std if depth is None else branch_std(std, module.out_features, depth))
        if module.bias is not None:
            init.zeros_(module.bias)
    elif isinstance(module, nn.RMSNorm):
        init.ones_(module.weight)
    elif isinstance(module, Downsample) and module.kind == "attention":
        init.zeros_(module.place_bias)
    elif isinstance(module, Upsample):
        init.zeros_(module.proj.weight)
        init.zeros_(module.start)
    elif isinstance(module, GroupPool):
        for parameter in (module.place_bias, module.gate, module.offset):
            init.zeros_(parameter)
    elif isinstance(module, Lookup):
        init.zeros_(module.o_proj.weight)
        init.zeros_(module.start_unit)
