"""Tokens one by one, as they are decoded: the shortest way from a prompt to text, at a cost that no prompt changes.

``generate`` carries the whole sequence along and copies it at every token, which after a prompt of a million tokens
costs more than the model does.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from foveate.errors import FoveateError
from foveate.hf.cache import FoveateCache
from foveate.hf.phases import Phases, coarsest_stride


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
    choose = _Choice(do_sample, temperature, top_k, top_p, generator)
    cache = cache if cache is not None else model.make_cache(1)
    return _stream(model, input_ids, cache, max_new_tokens, choose, _ends(model), on_read)


def stream_batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[int, int]]:
    """Continue several prompts at once: (prompt's number, token) as they come, for each prompt as ``stream`` does.

    Rows first wait for one another, fewer steps than the coarsest stride, so that coarse layers then work for all rows
    at the same step: see ``foveate.hf.phases``.

    Raises:
        FoveateError: no prompt, or an empty one.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise FoveateError("stream_batch takes one prompt or more, each of at least one token id")
    choose = _Choice(do_sample, temperature, top_k, top_p, generator)
    return _stream_batch(model, prompts, max_new_tokens, choose, _ends(model))


class _Choice:
    """How the next token follows from scores."""

    def __init__(
        self,
        do_sample: bool,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        generator: torch.Generator | None,
    ) -> None:
        self.do_sample, self.generator = do_sample, generator
        self.warpers: Any = LogitsProcessorList()  # Any: transformers names a type of ids that no tensor has
        if do_sample:
            self.warpers += [TemperatureLogitsWarper(temperature)] if temperature != 1 else []
            self.warpers += [TopKLogitsWarper(top_k)] if top_k else []
            self.warpers += [TopPLogitsWarper(top_p)] if top_p is not None and top_p < 1 else []

    def __call__(self, ids_B1: Tensor, logits_BV: Tensor) -> Tensor:
        """Ids [B, 1]."""
        scores_BV = self.warpers(ids_B1, logits_BV.float())
        if self.do_sample:
            return torch.multinomial(scores_BV.softmax(-1), 1, generator=self.generator)
        return scores_BV.argmax(-1, keepdim=True)


def _ends(model: Any) -> set[int | None]:
    ends = model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, list) else {ends}


def _stream(
    model: Any,
    input_ids: Tensor,
    cache: FoveateCache,
    max_new_tokens: int,
    choose: _Choice,
    ends: set[int | None],
    on_read: Callable[[int], Any] | None,
) -> Iterator[int]:
    # no decorator: a gradient mode entered around a generator would leak into its caller between tokens
    if input_ids.shape[1] > 1:
        with torch.inference_mode():
            model.read(input_ids[:, :-1], cache, on_read)
    ids = input_ids[:, -1:]
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            ids = choose(ids, model(ids, past_key_values=cache, use_cache=True).logits[:, -1])
        token = int(ids)
        yield token
        if token in ends:
            return


def _stream_batch(
    model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, choose: _Choice, ends: set[int | None]
) -> Iterator[tuple[int, int]]:
    cache, ids_B1, lengths = _read_batch(model, prompts)
    yield from continue_batch(model, cache, ids_B1, lengths, max_new_tokens, choose, ends)


def continue_batch(
    model: Any,
    cache: FoveateCache,
    ids_B1: Tensor,
    lengths: np.ndarray,
    max_new_tokens: int,
    choose: Callable[[Tensor, Tensor], Tensor],
    ends: Container[int | None],
) -> Iterator[tuple[int, int]]:
    """(row, token) as they come, after the last ids ``ids_B1`` of rows of which ``cache`` holds ``lengths`` [B] tokens.

    ``choose`` makes ids [B, 1] of the ids before [B, 1] and logits [B, V]. Rows that are done leave the cache.
    """
    phases = Phases(lengths, coarsest_stride(model.config.spec), max_new_tokens)
    number = np.arange(len(lengths))  # which row of those given each row left is
    left = np.full(len(lengths), max_new_tokens)
    while left.any():
        with torch.inference_mode():
            active = phases.step()
            mask_B1 = None if active.all() else torch.from_numpy(active[:, None]).to(ids_B1.device)
            logits_BV = model(ids_B1, attention_mask=mask_B1, past_key_values=cache, use_cache=True).logits[:, -1]
            chosen_B1 = choose(ids_B1, logits_BV)
            ids_B1 = chosen_B1 if mask_B1 is None else torch.where(mask_B1, chosen_B1, ids_B1)
        tokens = ids_B1[:, 0].tolist()
        left[active] -= 1
        for row in np.flatnonzero(active):
            yield int(number[row]), tokens[row]
            if tokens[row] in ends:
                left[row] = 0
        going_on = left > 0
        if going_on.any() and not going_on.all():
            rows = torch.from_numpy(np.flatnonzero(going_on))
            with torch.inference_mode():
                cache.batch_select_indices(rows)
                ids_B1 = ids_B1[rows.to(ids_B1.device)]
            phases.keep(going_on)
            number, left = number[going_on], left[going_on]


@torch.inference_mode()
def _read_batch(model: Any, prompts: Sequence[Sequence[int]]) -> tuple[FoveateCache, Tensor, np.ndarray]:
    """A cache that has read all but the last token of each prompt, these last tokens [B, 1], and the lengths read."""
    lengths = np.array([len(prompt) - 1 for prompt in prompts])
    columns = int(lengths.max())
    ids_BT = torch.zeros(len(prompts), columns, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids_BT[row, columns - lengths[row] :] = torch.as_tensor(prompt[:-1])
    mask_BT = torch.arange(columns) >= torch.from_numpy(columns - lengths)[:, None]
    cache = model.make_cache(len(prompts))
    if columns:
        ids_BT, mask_BT = ids_BT.to(model.device), mask_BT.to(model.device)
        model(ids_BT, attention_mask=mask_BT, past_key_values=cache, use_cache=True, logits_to_keep=1)
    last_B1 = torch.tensor([[int(prompt[-1])] for prompt in prompts], device=model.device)
    return cache, last_B1, lengths
