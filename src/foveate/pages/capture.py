"""What one token attends to in every layer, as weights that sum to 1 over the units before it.

Attention is linear in the values, so the derivative of a head's output by a value *is* that value's weight. It is taken
through the layer's own attention, whatever its kind: the masks, groups and rotations are those that the model uses, and
a new kind needs nothing here unless what it groups depends on the text, as zoom's does. Query heads that share a key
head are told apart by the channel that is looked at.

Shape legend: S units, H heads, K key-value heads, G = H/K, d head width, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from foveate.model.attention import Metadata
from foveate.model.layers import Stack
from foveate.model.zoom import ZoomAttention
from foveate.pages.shelf import Reader
from foveate.zooming import ZoomPlan, zoom_attention
from foveate.zooming.looking import look


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one layer sees of the text when its newest unit looks back.

    Attributes:
        weights: [H, S], of units of ``stride`` tokens; S is 0 where no unit is complete.
        size: units of the key as part of which each is seen, 0 of those that are not, [H, S] or [1, S].
        opened: units that are seen by themselves because zoom has opened their group, like ``size``; None: no zoom.
        ran: whether the layer works at this token; a coarser one shows what its newest unit saw.
    """

    stride: int
    attention: str
    ran: bool
    weights: Tensor
    size: Tensor
    opened: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Given:
    """The part of ``Seen`` that a layer's attention decides."""

    weights: Tensor
    size: Tensor
    opened: Tensor | None = None


def capture_walk(reader: Reader, ids: list[int], advance: Callable[[float], Any]) -> list[Seen]:
    """What the last of ``ids`` sees in each layer of a walk, in the order in which they work.

    Args:
        advance: told the share that is done, which may stop it by an exception.
    """
    model: Any = reader.model
    stacks: list[Any] = [
        step for step in model.base_model.decoder.steps if isinstance(step, Stack) and len(step.layers)
    ]
    found: dict[Any, Given] = {}
    hooks = []
    total = sum(len(stack.layers) for stack in stacks)
    for stack in stacks:
        for layer in stack.layers:

            def watch(module: Any, args: tuple[Any, ...]) -> None:
                found[module] = given_by_last(module, *args)
                advance(len(found) / total)

            hooks.append(layer.attention.register_forward_pre_hook(watch))
    try:
        with torch.no_grad():
            model(input_ids=torch.tensor([ids], device=model.device), use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    T, seen = len(ids), []
    for stack in stacks:
        for layer in stack.layers:
            heads = layer.attention
            given = found.get(heads) or Given(weights=torch.zeros(heads.heads, 0), size=torch.zeros(1, 0))
            ran = T % stack.stride == 0
            seen.append(Seen(stride=stack.stride, attention=str(heads.kind), ran=ran, **vars(given)))
    return seen


def given_by_last(heads: Any, qkv: Tensor, metadata: Metadata, layer: int) -> Given:
    """Of the last unit of one row, for ``qkv`` [1, S, H + 2K, d]."""
    if isinstance(heads, ZoomAttention):
        q_RSHd, k_RSKd, v_RSKd = heads.split(qkv, metadata)
        plan, scale = heads.zoom.plan, heads.head_dim**-0.5
        return zoom_gives(q_RSHd[0, -1], k_RSKd[0].transpose(0, 1), v_RSKd[0].transpose(0, 1), plan, scale)
    rotated = heads.heads + heads.kv_heads

    def of_last(value_KSd: Tensor) -> Tensor:
        whole = torch.cat((qkv[:, :, :rotated].detach(), value_KSd.transpose(0, 1)[None]), 2)
        return cast(Tensor, heads.forward(whole, metadata, layer)[0, -1])

    weights = derived(of_last, qkv[0, :, rotated:].transpose(0, 1), heads.heads)
    size = torch.zeros(1, qkv.shape[1], dtype=torch.long)
    for first, count in heads.kind.seen(qkv.shape[1] - 1):
        size[0, first : first + count] = count
    return Given(weights=weights, size=size)


def zoom_gives(q_Hd: Tensor, k_KSd: Tensor, v_KSd: Tensor, plan: ZoomPlan, scale: float) -> Given:
    """What a query of a zoom layer gives the units up to it; its queries and keys are rotated already."""
    q_RHCd, k_RKSd = q_Hd.detach()[None, :, None], k_KSd.detach()[None]
    weights = derived(
        lambda value_KSd: zoom_attention(q_RHCd, k_RKSd, value_KSd[None], plan, scale=scale)[0, :, 0], v_KSd, len(q_Hd)
    )
    G = len(q_Hd) // len(k_KSd)
    looked = look(q_Hd.detach().unflatten(0, (-1, G)), k_KSd.detach(), plan, scale)
    return Given(
        weights=weights, size=looked.size.repeat_interleave(G, 0), opened=looked.opened.repeat_interleave(G, 0)
    )


def derived(of_last: Callable[[Tensor], Tensor], value_KSd: Tensor, heads: int) -> Tensor:
    """The weights [H, S] by which an output [H, d], a linear function of the values, has them in it."""
    K, _, d = value_KSd.shape
    G, parts = heads // K, []
    for first in range(0, G, d):  # one pass tells as many query heads apart as there are channels
        some = min(G, first + d) - first
        with torch.enable_grad():
            value = value_KSd.detach().clone().requires_grad_()
            of_last_KGd = of_last(value).reshape(K, G, d)[:, first : first + some]
            channels = torch.arange(some, device=value.device)
            (grad_KSd,) = torch.autograd.grad(of_last_KGd[:, channels, channels].sum(), value)
        parts.append(grad_KSd[:, :, :some])
    return torch.cat(parts, 2).transpose(1, 2).reshape(heads, -1).detach().float().cpu()
