"""What callers pass beside the tokens: read where it fits the model, refused where it would be silently wrong.

Shape legend: B batch rows, T new columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.errors import FoveateError
from foveate.hf.cache import FoveateCache
from foveate.model.clock import Count


def new_columns(attention_mask: Tensor | None, batch: int, columns: int, seen: int) -> Tensor | None:
    """The mask [B, T] of the new columns, of one for them or for them and all ``seen`` before."""
    if attention_mask is None:
        return None
    if not isinstance(attention_mask, Tensor) or attention_mask.dim() != 2:
        shape = tuple(getattr(attention_mask, "shape", ())) or type(attention_mask).__name__
        raise FoveateError(
            f"attention_mask has shape {shape}; pass [batch, columns] with 0 for padding: "
            f"what a position may see follows from the walk"
        )
    rows, width = attention_mask.shape
    if rows != batch or width not in (columns, seen + columns):
        raise FoveateError(
            f"attention_mask has shape {(rows, width)} for {batch} rows of {columns} columns after {seen} in the cache"
        )
    return attention_mask[:, width - columns :]


def check_positions(position_ids: Tensor, mask_BT: Tensor | None, lengths: Count, columns: int, seen: int) -> None:
    """Positions [B, T] or [1, T] may number a row's own tokens, after its ``lengths`` before, or the batch's columns.

    Raises:
        FoveateError: they do neither, as where several texts are packed into one row.
    """
    if position_ids.dim() != 2 or position_ids.shape[1] != columns:
        raise FoveateError(f"position_ids has shape {tuple(position_ids.shape)} for {columns} columns; leave it out")
    device = position_ids.device
    before = torch.as_tensor(lengths, device=device).view(-1, 1)
    if mask_BT is None:
        same = position_ids == before + torch.arange(columns, device=device)
    else:
        real_BT = mask_BT.to(device) != 0
        same = (position_ids == before + real_BT.cumsum(1) - 1) | ~real_BT
    if not same.all() and not (position_ids == torch.arange(seen, seen + columns, device=device)).all():
        raise FoveateError(
            "position_ids do not count up by one from each row's first token: a multi-scale model counts positions "
            "itself, and rows of several packed texts need a batch row each; leave position_ids out"
        )


def check_prompt(attention_mask: Tensor | None, columns: int, cache: FoveateCache | None) -> None:
    """What generate would get silently wrong: prompts that end in padding, or that a given cache has wholly read."""
    if attention_mask is not None and not attention_mask[:, -1].all():
        raise FoveateError(
            "a prompt ends in padding, so there is no token to go on from; pad on the left (padding_side='left')"
        )
    if cache is not None and cache.seen and cache.seen >= columns:
        raise FoveateError(
            f"past_key_values has read {cache.seen} columns and the prompt has {columns}: pass the whole text, "
            f"beginning with what was read and going on by at least one token"
        )
