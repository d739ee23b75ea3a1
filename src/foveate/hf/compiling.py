"""Decoding steps compiled: by ``compile_decoding``, and as ``generate`` asks for it."""

from __future__ import annotations

from typing import Any

from torch import nn

from foveate.errors import FoveateError
from foveate.hf.cache import FoveateCache
from foveate.model.decoder import Decoder
from foveate.model.steps import CompiledStep

GRAPHS = "reduce-overhead"  # captures CUDA graphs, and means nothing elsewhere


def compile_decoding(model: nn.Module, **options: Any) -> nn.Module:
    """Compile the steps of ``model`` that decode one token per row with a cache of declared length.

    ``model.make_cache(rows, max_length=N)`` makes such a cache; ``generate(cache_implementation="static")`` uses one.
    The first step of each pattern of levels due is compiled then; a walk of n levels has n patterns. Any other call,
    such as that which reads the prompt, runs as before.

    Args:
        model: one of this package's, or what wraps it; it is changed in place, and returned.
        options: of ``torch.compile``, but for ``dynamic``; by default on a GPU ``mode="reduce-overhead"``.

    Raises:
        FoveateError: there is no multi-scale decoder in ``model``; an option that steps of one shape cannot have.
    """
    decoders = [module for module in model.modules() if isinstance(module, Decoder)]
    if not decoders:
        raise FoveateError("compile_decoding: there is no multi-scale decoder in the model; use torch.compile")
    if options.pop("dynamic", None):
        raise FoveateError("dynamic=True: a step of decoding has one shape; leave it out")
    for decoder in decoders:
        on_gpu = decoder.norm.weight.is_cuda
        chosen = {"mode": GRAPHS} | options if on_gpu and not {"mode", "options", "backend"} & set(options) else options
        if decoder.compiled_step is None or decoder.compiled_step.options != chosen:
            decoder.compiled_step = CompiledStep(chosen)
    return model


def compile_for_generate(model: Any, cache: FoveateCache | None, generation_config: Any) -> None:
    """What ``disable_compile`` and ``compile_config`` ask for; without them, on a GPU, as transformers compiles there.

    Raises:
        FoveateError: a ``compile_config`` without a cache of declared length.
    """
    config = generation_config.compile_config
    steps = cache.steps if cache is not None else None
    if steps is None or steps.max_length is None:
        if config is not None:
            raise FoveateError(
                "compile_config: only steps with a cache of declared length are compiled; "
                "pass cache_implementation='static' too"
            )
        return
    steps.compiled = not generation_config.disable_compile
    if not steps.compiled:
        return
    if config is not None:
        options = {name: value for name, value in config.to_dict().items() if value is not None}
        if options.get("backend", "inductor") != "inductor" or options.get("options"):
            options.pop("mode", None)  # its default, which others do not know
        if model.device.type == "cpu" and options.get("mode") == GRAPHS:
            del options["mode"]
        compile_decoding(model, **options)
    elif model.device.type == "cuda" and model.backbone.decoder.compiled_step is None:
        compile_decoding(model)


def declared_length(model: Any, columns: int, generation_config: Any) -> int:
    """Tokens that generate makes a cache for. Once longer ones were, all are: other lengths would be compiled anew."""
    asked = getattr(generation_config, "max_cache_len", None) or 0
    longest = max(columns, asked, model.__dict__.get("longest_declared", 1))
    model.__dict__["longest_declared"] = longest
    return longest
