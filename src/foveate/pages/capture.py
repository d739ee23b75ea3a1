"""What one token attends to in every layer, as weights that sum to 1 over the units before it.

Attention is linear in the values, so the derivative of a head's output by a value *is* that value's weight. It is taken
through the layer's own attention, whatever its kind: the masks, groups and rotations are those that the model uses, and
a new kind needs nothing here. Query heads that share a key head are told apart by the channel that is looked at.

Shape legend: S units, H heads, K key-value heads, G = H/K, d head width, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foveate.errors import FoveateError, first_line
from foveate.hf.private import CACHE
from foveate.loading import quiet_transformers
from foveate.model.layers import Stack
from foveate.pages.shelf import Reader


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one layer sees of the text when its newest unit looks back.

    Attributes:
        weights: [H, S], of units of ``stride`` tokens; S is 0 where no unit is complete.
        keys: the first unit of each key, and the units it stands for, oldest first; a key of several is a group.
        ran: whether the layer works at this token; a coarser one shows what its newest unit saw.
    """

    stride: int
    attention: str
    ran: bool
    weights: Tensor
    keys: list[tuple[int, int]]

    @property
    def sizes(self) -> list[int]:
        """Tokens that each key stands for."""
        return [count * self.stride for _, count in self.keys]

    def masses(self) -> Tensor:
        """Attention of each head to each key, [H, keys]."""
        total = torch.nn.functional.pad(self.weights.double().cumsum(1), (1, 0))
        first = torch.tensor([unit for unit, _ in self.keys], dtype=torch.long)
        count = torch.tensor([n for _, n in self.keys], dtype=torch.long)
        return total[:, first + count] - total[:, first]


def capture(reader: Reader, ids: list[int], advance: Callable[[float], Any] = lambda share: None) -> list[Seen]:
    """What the last of ``ids`` sees in each layer, in the order in which they work.

    Args:
        advance: told the share that is done, which may stop it by an exception.

    Raises:
        FoveateError: a model of another kind that cannot show its attention.
    """
    if reader.spec is not None:
        return _of_walk(reader, ids, advance)
    return _of_another(reader, ids, advance)


def _of_walk(reader: Reader, ids: list[int], advance: Callable[[float], Any]) -> list[Seen]:
    model: Any = reader.model
    stacks: list[Any] = [
        step for step in model.base_model.decoder.steps if isinstance(step, Stack) and len(step.layers)
    ]
    found: dict[Any, Tensor] = {}
    hooks = []
    total = sum(len(stack.layers) for stack in stacks)
    for stack in stacks:
        for layer in stack.layers:

            def watch(module: Any, args: tuple[Any, ...]) -> None:
                found[module] = weights_of_last(module, *args)
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
            weights = found.get(heads, torch.zeros(heads.heads, 0))
            S = weights.shape[1]
            seen.append(
                Seen(
                    stride=stack.stride,
                    attention=str(heads.kind),
                    ran=T % stack.stride == 0,
                    weights=weights,
                    keys=heads.kind.seen(S - 1) if S else [],
                )
            )
    return seen


def weights_of_last(heads: Any, qkv: Tensor, metadata: Any, layer: int) -> Tensor:
    """Of the last unit of one row: the weights [H, S] that its heads give the values of ``qkv`` [1, S, H + 2K, d]."""
    H, K, d = heads.heads, heads.kv_heads, heads.head_dim
    G, rotated = H // K, heads.heads + heads.kv_heads
    parts = []
    for first in range(0, G, d):  # one pass tells as many query heads apart as there are channels
        some = min(G, first + d) - first
        with torch.enable_grad():
            value = qkv[:, :, rotated:].detach().clone().requires_grad_()
            out = heads.forward(torch.cat((qkv[:, :, :rotated].detach(), value), 2), metadata, layer)
            of_last_KGd = out[0, -1].reshape(K, G, d)[:, first : first + some]
            channels = torch.arange(some, device=qkv.device)
            (grad_SKd,) = torch.autograd.grad(of_last_KGd[:, channels, channels].sum(), value)
        parts.append(grad_SKd[0, :, :, :some])
    return torch.cat(parts, 2).permute(1, 2, 0).reshape(H, -1).detach().float().cpu()


def _of_another(reader: Reader, ids: list[int], advance: Callable[[float], Any]) -> list[Seen]:
    """By ``output_attentions``, which costs a row of weights if the text before is in a cache."""
    model: Any = reader.model
    given = torch.tensor([ids], device=model.device)
    cannot = f"{reader.name} ({type(model).__name__}) cannot show what it attends to"
    try:
        with quiet_transformers(), torch.inference_mode():
            past = None
            if len(ids) > 1:
                past = getattr(model.base_model(input_ids=given[:, :-1], use_cache=True), CACHE)
                advance(0.9)
            with _eager(model):
                output = model(input_ids=given[:, -1:], use_cache=True, output_attentions=True, **{CACHE: past})
    except (TypeError, ValueError, AttributeError) as error:
        raise FoveateError(f"{cannot}: {first_line(error)}") from None
    rows = [each for each in getattr(output, "attentions", None) or () if each is not None]
    if not rows:
        raise FoveateError(f"{cannot}: it has no attention weights")
    T, seen = len(ids), []
    for row in rows:
        weights = torch.zeros(row.shape[1], T)
        L = min(T, row.shape[-1])
        weights[:, T - L :] = row[0, :, -1, -L:].float().cpu()
        name = "full" if T == L else f"window{L}"
        seen.append(Seen(stride=1, attention=name, ran=True, weights=weights, keys=[(t, 1) for t in range(T - L, T)]))
    return seen


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
