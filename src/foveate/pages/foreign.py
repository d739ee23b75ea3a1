"""What one token attends to in each layer of a model that is no walk: its own weights, or those of ``foveate.zoom``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from foveate.errors import FoveateError, first_line
from foveate.hf import zoom_attention as interface
from foveate.hf.private import CACHE
from foveate.hf.zoom import zoom
from foveate.loading import quiet_transformers
from foveate.pages.capture import Given, Seen, zoom_gives
from foveate.pages.shelf import Reader
from foveate.zooming import ZoomPlan

Advance = Callable[[float], Any]


def capture_weights(reader: Reader, ids: list[int], advance: Advance) -> list[Seen]:
    """By ``output_attentions``, which costs a row of weights if the text before is in a cache.

    Args:
        advance: told the share that is done, which may stop it by an exception.

    Raises:
        FoveateError: the model cannot show its attention.
    """
    model: Any = reader.model
    given = torch.tensor([ids], device=model.device)
    cannot = f"{reader.name} ({type(model).__name__}) cannot show what it attends to"
    try:
        with quiet_transformers(), torch.inference_mode():
            past = None
            if len(ids) > 1:
                with _counting(model, advance):
                    past = getattr(model.base_model(input_ids=given[:, :-1], use_cache=True), CACHE)
            with _eager(model):
                output = model(input_ids=given[:, -1:], use_cache=True, output_attentions=True, **{CACHE: past})
    except (TypeError, ValueError, AttributeError) as error:
        raise FoveateError(f"{cannot}: {first_line(error)}") from None
    rows = [each for each in getattr(output, "attentions", None) or () if each is not None]
    if not rows:
        raise FoveateError(f"{cannot}: it has no attention weights")
    T, seen = len(ids), []
    for row in rows:
        weights, size = torch.zeros(row.shape[1], T), torch.zeros(1, T, dtype=torch.long)
        L = min(T, row.shape[-1])
        weights[:, T - L :], size[:, T - L :] = row[0, :, -1, -L:].float().cpu(), 1
        name = "full" if T == L else f"window{L}"
        seen.append(Seen(stride=1, attention=name, ran=True, weights=weights, size=size))
    return seen


def capture_zoomed(reader: Reader, ids: list[int], plan: ZoomPlan, advance: Advance) -> list[Seen]:
    """Of the model while it zooms by ``plan`` in all layers.

    Raises:
        FoveateError: ``foveate.zoom`` does not serve it.
    """
    model: Any = reader.model
    found: list[Given] = []
    layers = model.config.get_text_config().num_hidden_layers

    def watch(q_BHCd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, scale: float) -> None:
        found.append(zoom_gives(q_BHCd[0, :, -1], k_BKTd[0], v_BKTd[0], plan, scale))
        advance(len(found) / layers)

    with quiet_transformers(), zoom(model, plan), _watching(watch), torch.no_grad():
        model.base_model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
    return [Seen(stride=1, attention="zoom", ran=True, **vars(given)) for given in found]


@contextmanager
def _counting(model: Any, advance: Advance) -> Iterator[None]:
    """Tell ``advance`` after each of the model's layers, where those can be told."""
    count = model.config.get_text_config().num_hidden_layers
    lists = (each for each in model.modules() if isinstance(each, torch.nn.ModuleList) and len(each) == count)
    layers = next(lists, ())
    hooks = [
        layer.register_forward_hook(lambda *args, done=done: advance(done / (count + 1)))
        for done, layer in enumerate(layers, 1)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _watching(watch: Any) -> Iterator[None]:
    interface.watch = watch
    try:
        yield
    finally:
        interface.watch = None


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
