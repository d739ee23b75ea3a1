"""The attention function that a zoomed transformers model calls, and the mask function that goes with it.

The mask function makes no scores' mask: it hands on which columns are real. Layers that do not zoom (dense ones, and
those with a sliding window of their own) attend in pieces of the queries, so no tensor is tokens × tokens.

Shape legend: B rows, H query heads, K key heads, C new columns (the queries), T columns in all, d head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from foveate.errors import FoveateError, shown
from foveate.zooming import ZoomPlan, ZoomState, zoom_attention

NAME = "foveate_zoom"
PLAN = "foveate_zoom_plan"  # attribute of an attention module: its plan, or None for one that does not zoom
STATE = "foveate_zoom_state"  # attribute of the keys that a zoom layer of the cache hands on
REAL = "foveate_real"  # attribute of the mask of a padded call
AT_ONCE = 512  # queries of a layer that does not zoom

UNSUPPORTED = {"softcap": "soft-capped logits", "s_aux": "learned sinks", "position_bias": "a position bias"}
probed: list[Any] | None = None  # modules that attended, while zoom() finds them
measure: Callable[[Any, Tensor, Tensor, Tensor, float], None] | None = None  # sees what zooming layers attend to
watch: Callable[[Tensor, Tensor, Tensor, float], None] | None = None  # is shown it, and the layers go on zooming


@dataclass(frozen=True)
class Real:
    """Which of the new columns are tokens, the tokens' columns first, and how many each row has."""

    order: Tensor  # of the columns, [B, C]
    counts: list[int]

    def packed(self, x_BHCd: Tensor) -> Tensor:
        """Each row's tokens first, padding after them."""
        return x_BHCd.gather(2, self.order[:, None, :, None].expand_as(x_BHCd))

    def unpacked(self, x_BHCd: Tensor) -> Tensor:
        """Back to the columns they came from; padding is 0."""
        index = torch.arange(x_BHCd.shape[2], device=x_BHCd.device)
        real_BC = index < torch.tensor(self.counts, device=x_BHCd.device)[:, None]
        x_BHCd = x_BHCd.masked_fill(~real_BC[:, None, :, None], 0)
        place_BC = self.order.argsort(1)
        return x_BHCd.gather(2, place_BC[:, None, :, None].expand_as(x_BHCd))


def real_columns(real_BC: Tensor) -> Real | None:
    """None if all are."""
    counts = real_BC.sum(1).tolist()
    if min(counts) == real_BC.shape[1]:
        return None
    return Real((~real_BC).byte().argsort(dim=1, stable=True), counts)


def padding_mask(
    *,
    q_length: int,
    q_offset: int = 0,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    **kwargs: Any,
) -> Tensor | None:
    """What transformers passes to the layers in place of a mask: bool [B, T], or None if no column is padding."""
    if not allow_is_causal_skip or "allow_is_bidirectional_skip" in kwargs:
        raise FoveateError(
            "zoom reads causal text, one document a row: no packed documents (position_ids that start again), "
            "no two-way attention"
        )
    if attention_mask is None:
        return None
    columns = int(q_offset) + q_length
    if attention_mask.shape[1] < columns:
        raise FoveateError(
            f"zoom: attention_mask has {attention_mask.shape[1]} columns for {columns}: those of the cache count too"
        )
    mask_BT = attention_mask[:, :columns].bool()
    # asked once a call, not once a layer
    real = real_columns(mask_BT[:, columns - q_length :])
    setattr(mask_BT, REAL, real)
    return mask_BT if real is not None or not bool(mask_BT.all()) else None


def zoom_forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """[B, C, H, d] and no weights, as transformers' attention functions return them."""
    if probed is not None:
        check(module, query, key, value, kwargs)
        probed.append(module)
    if dropout:
        raise FoveateError(f"zoom: attention dropout of {dropout} is not done; set attention_dropout=0")
    if attention_mask is not None and attention_mask.dim() != 2:
        raise FoveateError(
            f"zoom: an attention_mask of shape {tuple(attention_mask.shape)}; pass one of [rows, tokens]"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    plan: ZoomPlan | None = getattr(module, PLAN, None)
    zooms = plan is not None and sliding_window is None
    if measure is not None and zooms:  # on the activations of the model as it was
        measure(module, query, key, value, scale)
    if plan is None or not zooms or measure is not None:
        out = in_pieces(query, key, value, attention_mask, scale, sliding_window)
    else:
        if watch is not None:
            watch(query, key, value, scale)
        out = zoomed(query, key, value, attention_mask, scale, plan)
    return out.transpose(1, 2).contiguous(), None


def check(module: Any, query: Tensor, key: Tensor, value: Tensor, kwargs: dict[str, Any]) -> None:
    """Whether this layer does what zoom knows how to do."""
    name = type(module).__name__
    for argument, what in UNSUPPORTED.items():
        if kwargs.get(argument) is not None:
            raise FoveateError(f"zoom does not do {what} ({argument}={shown(kwargs[argument])} of {name})")
    if query.shape[-1] != key.shape[-1] or key.shape[-1] != value.shape[-1]:
        raise FoveateError(f"{name} has keys of {key.shape[-1]} and values of {value.shape[-1]}: zoom needs one width")
    if not getattr(module, "is_causal", True) or key.shape[2] != query.shape[2]:
        raise FoveateError(f"{name} is not causal self-attention: zoom reads that alone")


def zoomed(
    q_BHCd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, mask_BT: Tensor | None, scale: float, plan: ZoomPlan
) -> Tensor:
    state: ZoomState | None = getattr(k_BKTd, STATE, None)
    real: Real | None = getattr(mask_BT, REAL, None)
    if state is None and real is not None and k_BKTd.shape[2] != q_BHCd.shape[2]:
        raise FoveateError("zoom: padded rows need a ZoomCache; this cache was made without zoom")
    if real is None:
        if state is None:
            return zoom_attention(q_BHCd, k_BKTd, v_BKTd, plan, scale=scale)
        return state.read(q_BHCd, k_BKTd, v_BKTd, scale=scale)
    q_BHCd, k_BKCd, v_BKCd = (real.packed(x) for x in (q_BHCd, k_BKTd, v_BKTd))
    if state is None:
        return real.unpacked(zoom_attention(q_BHCd, k_BKCd, v_BKCd, plan, scale=scale))
    return real.unpacked(state.read(q_BHCd, k_BKCd, v_BKCd, counts=real.counts, scale=scale))


def in_pieces(
    q_BHCd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, mask_BT: Tensor | None, scale: float, window: int | None
) -> Tensor:
    """Full or window attention of the last C of T columns, some queries at a time."""
    C, T = q_BHCd.shape[2], k_BKTd.shape[2]
    grouped = q_BHCd.shape[1] != k_BKTd.shape[1]
    if mask_BT is None and C == T and (window is None or window >= C):
        return scaled_dot_product_attention(q_BHCd, k_BKTd, v_BKTd, is_causal=True, scale=scale, enable_gqa=grouped)
    if mask_BT is not None:
        mask_BT = mask_BT[:, -T:]  # a sliding layer of the cache hands on its last columns alone
    out = []
    for a in range(0, C, AT_ONCE):
        b = min(C, a + AT_ONCE)
        first = 0 if window is None else max(0, T - C + a - window + 1)
        end = T - C + b
        query = torch.arange(T - C + a, end, device=q_BHCd.device)[:, None]
        column = torch.arange(first, end, device=q_BHCd.device)
        seen = column <= query
        if window is not None:
            seen = seen & (column > query - window)
        if mask_BT is not None:
            # a column sees itself, padding too: a softmax over nothing is not a number
            seen = (seen & mask_BT[:, None, first:end] | (column == query))[:, None]
        out.append(
            scaled_dot_product_attention(
                q_BHCd[:, :, a:b],
                k_BKTd[:, :, first:end],
                v_BKTd[:, :, first:end],
                attn_mask=seen,
                scale=scale,
                enable_gqa=grouped,
            )
        )
    return torch.cat(out, 2)
