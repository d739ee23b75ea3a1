"""Tokens one by one, as they are decoded: the shortest way from a prompt to text, at a cost that no prompt changes.

``generate`` carries the whole sequence along and copies it at every token, which after a prompt of a million tokens
costs more than the model does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from foveate.errors import FoveateError
from foveate.hf.cache import FoveateCache


def stream(
    model: Any,
    input_ids: Tensor,
    *,
    max_new_tokens: int,
    cache: FoveateCache | None = None,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    on_read: Callable[[int], Any] | None = None,
) -> Iterator[int]:
    """Continue ``input_ids`` [1, T] until an end-of-text id (which is yielded, too) or for ``max_new_tokens``.

    Args:
        cache: what was read before; ``input_ids`` then hold only what follows, at least one id.
        do_sample: draw at ``temperature``, from the ``top_k`` likeliest, or those that make up ``top_p`` of the
            probability; otherwise take the likeliest.
        on_read: told the number of prompt tokens read after each chunk.

    Raises:
        FoveateError: for anything but one row with at least one token.
    """
    if input_ids.dim() != 2 or len(input_ids) != 1 or not input_ids.shape[1]:
        raise FoveateError(f"stream takes one row of ids, [1, T] with T at least 1; got {list(input_ids.shape)}")
    warpers = LogitsProcessorList()
    if do_sample:
        warpers += [TemperatureLogitsWarper(temperature)] if temperature != 1 else []
        warpers += [TopKLogitsWarper(top_k)] if top_k else []
        warpers += [TopPLogitsWarper(top_p)] if top_p is not None and top_p < 1 else []
    ends = model.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    cache = cache if cache is not None else model.make_cache(1)
    return _stream(model, input_ids, cache, max_new_tokens, do_sample, warpers, generator, ends, on_read)


def _stream(
    model: Any,
    input_ids: Tensor,
    cache: FoveateCache,
    max_new_tokens: int,
    do_sample: bool,
    warpers: LogitsProcessorList,
    generator: torch.Generator | None,
    ends: set[int | None],
    on_read: Callable[[int], Any] | None,
) -> Iterator[int]:
    # no decorator: a gradient mode entered around a generator would leak into its caller between tokens
    warp: Any = warpers  # Any: transformers names a type of ids that no tensor has
    if input_ids.shape[1] > 1:
        with torch.inference_mode():
            model.read(input_ids[:, :-1], cache, on_read)
    ids = input_ids[:, -1:]
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            scores = warp(ids, model(ids, past_key_values=cache, use_cache=True).logits[:, -1].float())
            if do_sample:
                ids = torch.multinomial(scores.softmax(-1), 1, generator=generator)
            else:
                ids = scores.argmax(-1, keepdim=True)
        token = int(ids)
        yield token
        if token in ends:
            return
