"""What callers pass beside the tokens: read where it fits the model, refused where it would be silently wrong.

Shape legend: B batch rows, T new columns.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from foveate.errors import FoveateError
from foveate.hf.cache import FoveateCache
from foveate.model.clock import Count


def refuse_unknown(names: Mapping[str, Any], forward: Callable[..., Any], *more: str) -> None:
    """Raise a FoveateError for arguments that a forward does not know; what is None was not passed.

    Args:
        forward: has the known ones by name, besides ``more``.
    """
    for name, value in names.items():
        if value is None or name in more or (name.startswith("output_") and value is False):
            continue
        known = [*inspect.signature(forward).parameters, *more]
        close = difflib.get_close_matches(name, known, 1)
        meant = f"did you mean {close[0]}?" if close else "leave it out"
        raise FoveateError(f"{name} is no argument of a Foveate model's forward; {meant}")


def refuse_token_types(token_type_ids: Any) -> None:
    """Tokenizers made without a thought pass zeros, which say nothing."""
    if token_type_ids is not None and bool(torch.as_tensor(token_type_ids).any()):
        raise FoveateError("token_type_ids: a language model's tokens are of one type; leave token_type_ids out")


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
    mask_BT = attention_mask[:, width - columns :]
    if attention_mask.is_floating_point() and columns:
        said = ((mask_BT == 0) | (mask_BT == 1)).all() and attention_mask.any()
        if not bool(said):
            raise FoveateError(
                "attention_mask is of floats that are not 1 for tokens and 0 for padding, such as are added to scores; "
                "pass whole numbers"
            )
    return mask_BT


def numbered(mask_BT: Tensor | None) -> Tensor | None:
    """A mask [B, T] that numbers documents from 1 on, 0 being padding; None if it only says 1."""
    if mask_BT is None or mask_BT.dtype == torch.bool or mask_BT.is_floating_point() or not mask_BT.numel():
        return None
    if torch.compiler.is_compiling():  # which would break the graph to look
        torch._assert_async(
            ((mask_BT >= 0) & (mask_BT <= 1)).all(),
            "attention_mask is to number documents, which a compiled model does not look for; "
            "give each text a row of its own, or do not compile the model",
        )
        return None
    low, high = torch.stack(mask_BT.aminmax()).tolist()  # one wait for a device, not two
    if low < 0:
        raise FoveateError(f"attention_mask has the value {low}; pass 1 for tokens and 0 for padding")
    return mask_BT.long() if high > 1 else None


def counts_on(position_ids: Tensor, mask_BT: Tensor | None, lengths: Count, columns: int, seen: int) -> bool:
    """Whether positions [B, T] or [1, T] number a row's tokens, after its ``lengths`` before, or the batch's columns.

    Raises:
        FoveateError: they are for other columns.
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
    return bool(same.all() or (position_ids == torch.arange(seen, seen + columns, device=device)).all())


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
