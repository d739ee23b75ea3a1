"""The cache of a zoomed transformers model: a zoom state for each layer that zooms, else transformers' own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from foveate.errors import FoveateError, shown
from foveate.hf.state_file import read_state, write_state
from foveate.hf.zoom_attention import STATE
from foveate.zooming import Keeping, ZoomPlan, ZoomState

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ZOOMED = "foveate_zoomed"  # attribute of a model: how it zooms


class ZoomLayer(CacheLayerMixin):
    """One layer's zoom state. The attention function finds it on the keys that ``update`` returns, and writes it."""

    is_sliding = False
    is_croppable = True

    def __init__(self, plan: ZoomPlan, keeping: Keeping | None = None) -> None:
        super().__init__()
        self.state = ZoomState(plan, keeping)
        self.columns = 0  # padding counted

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.is_initialized = True
        self.columns += key_states.shape[2]
        marked = key_states.view(key_states.shape)
        setattr(marked, STATE, self.state)
        return marked, value_states

    def get_seq_length(self) -> int:
        return self.columns

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.columns + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove > 0:
            raise FoveateError(f"crop({tokens_to_remove}): pass a negative number, the tokens to remove")
        if tokens_to_remove and self.is_initialized:
            self.state.remove_last(-tokens_to_remove)
            self.columns += tokens_to_remove

    def reset(self) -> None:
        self.state.clear()
        self.columns, self.is_initialized = 0, False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        if self.columns:
            self.state.take_rows(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.columns:
            self.state.take_rows(torch.arange(self.state.rows).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.columns:
            indices = torch.as_tensor(indices)
            self.state.take_rows(indices.nonzero()[:, 0] if indices.dtype == torch.bool else indices)

    def offload(self) -> None:
        raise FoveateError("a zoom cache is not offloaded by transformers: leave offloading out")

    prefetch = offload


class ZoomCache(Cache):
    """What a zoomed model has read.

    Args:
        config: the model's.
        plans: one per layer, ``None`` for a layer that does not zoom.
        keeping: where and how layers that zoom keep keys and values.
    """

    def __init__(
        self, config: PreTrainedConfig, plans: Sequence[ZoomPlan | None], keeping: Keeping | None = None
    ) -> None:
        layers: list[Any] = list(DynamicCache(config=config).layers)
        for index, (layer, plan) in enumerate(zip(layers, plans, strict=True)):
            if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
                raise FoveateError(f"zoom has no cache for layer {index}, whose own is a {type(layer).__name__}")
            if plan is not None and type(layer) is DynamicLayer:
                layers[index] = ZoomLayer(plan, keeping)
        super().__init__(layers=layers)

    @property
    def nbytes(self) -> int:
        """Bytes held, capacity included."""
        return sum(_layer_bytes(layer) for layer in self.layers)

    @property
    def device_nbytes(self) -> int:
        """Bytes held on the model's device: what is offloaded is not."""
        off = sum(x.state.nbytes - x.state.device_nbytes for x in self.layers if isinstance(x, ZoomLayer))
        return self.nbytes - off

    @property
    def is_compileable(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"ZoomCache(columns={self.get_seq_length()}, bytes={self.nbytes})"

    def get_seq_length(self, layer_idx: int = 0) -> int:
        layer: Any = self.layers[layer_idx]
        return int(layer.get_seq_length())

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last ``-tokens_to_remove`` columns, which must be tokens in every row."""
        for layer in self.layers:
            if tokens_to_remove and isinstance(layer, ZoomLayer) and len(set(layer.state.lengths)) > 1:
                # which rows' last columns were padding is not kept
                raise FoveateError("zoom: rows of different lengths cannot be cropped")
        super().crop(tokens_to_remove)

    def save(self, path: str | Path, model: Any, *, read: Sequence[int] = ()) -> None:
        """Write what ``model`` has read to one safetensors file: beside it first, then in its place.

        Args:
            read: the ids that were read, of which a digest is kept for ``load``.
        """
        counts: list[dict[str, Any]] = []
        tensors: dict[str, Tensor] = {}
        for index, layer in enumerate(self.layers):
            held, named = layer_tensors(layer)
            counts.append(held)
            tensors |= {f"{index}.{name}": tensor for name, tensor in named.items()}
        header = {"plans": self._plans(), "layers": counts, "read": _digest(read)}
        write_state(Path(path), "zoom cache", header, tensors, model)

    @classmethod
    def load(cls, path: str | Path, model: Any, *, read: Sequence[int] = ()) -> ZoomCache:
        """A saved cache, on the model's device.

        Args:
            read: the ids that must have been read; by default whatever was.

        Raises:
            FoveateError: no such file, not a zoom cache, or one of another model, of other settings or another text.
        """
        cache = cache_of(model)
        header, tensors = read_state(Path(path), "zoom cache", model)
        if header["plans"] != cache._plans():
            raise FoveateError(f"{path} was read with other settings of zoom than the model has now")
        if len(read) and header.get("read") != _digest(read):
            raise FoveateError(f"{path} was read from another text; remove it, or name another file")
        named: list[dict[str, Tensor]] = [{} for _ in cache.layers]
        for name, tensor in tensors.items():
            index, what = name.split(".", 1)
            named[int(index)][what] = tensor
        for layer, counts, its in zip(cache.layers, header["layers"], named, strict=True):
            fill_layer(layer, counts, its)
        return cache

    def _plans(self) -> list[Any]:
        """How each layer zooms, as JSON gives it back."""
        plans = [layer.state.plan if isinstance(layer, ZoomLayer) else None for layer in self.layers]
        return list(json.loads(json.dumps([plan and asdict(plan) for plan in plans])))


def _digest(ids: Sequence[int]) -> str:
    return hashlib.sha256(repr(list(ids)).encode()).hexdigest() if len(ids) else ""


def cache_of(model: Any) -> ZoomCache:
    """An empty cache of a zoomed model."""
    zoomed: Any = getattr(model, ZOOMED, None)
    if zoomed is None:
        raise FoveateError("the model does not zoom: call foveate.zoom(model, …) first")
    cache: ZoomCache = zoomed.cache()
    return cache


def _layer_bytes(layer: Any) -> int:
    if isinstance(layer, ZoomLayer):
        return layer.state.nbytes
    return int(layer.keys.nbytes + layer.values.nbytes) if layer.is_initialized else 0


def layer_tensors(layer: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """All that a layer of a zoom cache is."""
    if isinstance(layer, ZoomLayer):
        counts, tensors = layer.state.saved()
        return {**counts, "columns": layer.columns}, tensors
    if not layer.is_initialized:
        return {}, {}
    counts = {"columns": layer.get_seq_length()}
    return counts, {"keys": layer.keys.contiguous(), "values": layer.values.contiguous()}


def fill_layer(layer: Any, counts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Make an empty layer what ``layer_tensors`` said."""
    if not counts or not tensors:
        return
    if isinstance(layer, ZoomLayer):
        layer.state.restore(counts, tensors)
        layer.columns, layer.is_initialized = counts["columns"], True
        return
    layer.lazy_initialization(tensors["keys"], tensors["values"])
    layer.keys, layer.values = tensors["keys"], tensors["values"]
    if isinstance(layer, DynamicSlidingWindowLayer):
        layer.cumulative_length = counts["columns"]
    elif layer.get_seq_length() != counts["columns"]:
        raise FoveateError(f"a layer of {shown(json.dumps(counts))} holds {layer.get_seq_length()} columns")
