"""The transformer layer every level is made of, and a stack of them on one level.

Shape legend: R rows, S units, D width, H heads, K key-value heads, d head width, F feed-forward width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from foveate import spec
from foveate.backends import compute_dtype
from foveate.model.attention import Heads, Metadata, make_heads
from foveate.model.buffer import Buffer
from foveate.model.clock import Units
from foveate.model.documents import Indices
from foveate.model.rotary import Rotary
from foveate.model.streams import Trace

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_pytorch_tanh": partial(gelu, approximate="tanh"),
}


@dataclass(frozen=True, kw_only=True)
class PackedMetadata:
    """Documents of rows that hold several, as rows of their own: places in the flattened batch and metadata of each
    bundle of like length, and where in all bundles each unit of the batch stands."""

    bundles: tuple[tuple[Tensor, Metadata], ...]
    places: Tensor


class Layer(nn.Module):
    """Attention and a gated MLP, query-key-value and gate-up each as one matrix product; ``block`` says what of."""

    def __init__(self, level: spec.Level, attention: spec.Attention, block: spec.Block, eps: float, depth: int) -> None:
        super().__init__()
        D, d, F = level.width, level.head_dim, level.feed_forward
        H, K = level.heads, level.kv_heads
        self.all_heads = (H + 2 * K, d)
        self.before, self.after = block.norms != "post", block.norms != "pre"  # a branch, where its norms stand
        self.qk_norm = block.qk_norm
        self.activate = ACTIVATIONS[block.activation]
        if self.before:
            self.attention_norm = nn.RMSNorm(D, eps)
        self.qkv_proj = nn.Linear(D, self.all_heads[0] * d, bias="qkv" in block.biases)
        if block.qk_norm is not None:
            self.q_norm, self.k_norm = (
                nn.RMSNorm(d if block.qk_norm == "head" else heads * d, eps) for heads in (H, K)
            )
        self.attention = make_heads(level, attention)
        self.attention.soft_cap = block.soft_cap
        self.o_proj = nn.Linear(H * d, D, bias="o" in block.biases)
        if self.after:
            self.attention_out_norm = nn.RMSNorm(D, eps)
        if self.before:
            self.mlp_norm = nn.RMSNorm(D, eps)
        self.gate_up_proj = nn.Linear(D, 2 * F, bias="mlp" in block.biases)
        self.down_proj = nn.Linear(F, D, bias="mlp" in block.biases)
        if self.after:
            self.mlp_out_norm = nn.RMSNorm(D, eps)
        for branch in (self.o_proj, self.down_proj):
            branch.depth = depth  # type: ignore[assignment]  # of the stream it adds to; it starts by that

    def forward(self, x_RSD: Tensor, metadata: Metadata | PackedMetadata, index: int) -> Tensor:
        """``index`` is the layer's place in its run, and so in the buffer of ``metadata``."""
        qkv = self.qkv_proj(self.attention_norm(x_RSD) if self.before else x_RSD).unflatten(-1, self.all_heads)
        if self.qk_norm is not None:
            qkv = self._normalised(qkv)
        y_RSD = self.o_proj(self._attend(qkv, metadata, index).flatten(2))
        x_RSD = x_RSD + (self.attention_out_norm(y_RSD) if self.after else y_RSD)
        gate, up = self.gate_up_proj(self.mlp_norm(x_RSD) if self.before else x_RSD).chunk(2, -1)
        y_RSD = self.down_proj(self.activate(gate) * up)
        return x_RSD + (self.mlp_out_norm(y_RSD) if self.after else y_RSD)

    def _normalised(self, qkv: Tensor) -> Tensor:
        """Queries and keys normalised, values as they are."""
        H, K = self.attention.heads, self.attention.kv_heads
        q_RSHd, k_RSKd, v_RSKd = qkv.split((H, K, K), 2)
        if self.qk_norm == "head":
            return torch.cat((self.q_norm(q_RSHd), self.k_norm(k_RSKd), v_RSKd), 2)
        qk = (norm(part.flatten(2)).view_as(part) for norm, part in ((self.q_norm, q_RSHd), (self.k_norm, k_RSKd)))
        return torch.cat((*qk, v_RSKd), 2)

    def _attend(self, qkv: Tensor, metadata: Metadata | PackedMetadata, index: int) -> Tensor:
        if isinstance(metadata, Metadata):
            return self.attention(qkv, metadata, index)
        flat = qkv.flatten(0, 1)
        outs = [
            self.attention(flat[places.flatten()].unflatten(0, places.shape), of_bundle, index).flatten(0, 1)
            for places, of_bundle in metadata.bundles
        ]
        out = outs[0] if len(outs) == 1 else torch.cat(outs)
        return out[metadata.places].unflatten(0, qkv.shape[:2])


class Stack(nn.Module):
    """The layers of a run; its buffer holds their keys and values."""

    gradient_checkpointing = False  # both are switched by transformers
    _gradient_checkpointing_func: Callable[..., Tensor]

    def __init__(
        self, run: spec.Run, level: spec.Level, block: spec.Block, *, depth: int, rope: spec.Rope | None, eps: float
    ) -> None:
        """``depth`` counts the layers of the level in all its runs."""
        super().__init__()
        self.stride = run.stride
        self.level = level
        self.layers = nn.ModuleList(Layer(level, run.attention, block, eps, depth) for _ in range(run.layers))
        self.rotary = Rotary(level.head_dim, rope)

    def make_buffers(self) -> tuple[Buffer, ...]:
        return (self._heads.make_buffer(self.stride, len(self.layers)),) if len(self.layers) else ()

    @property
    def _heads(self) -> Heads:
        return cast(Layer, self.layers[0]).attention

    def forward(
        self, x_RSD: Tensor, units: Units, buffers: tuple[Buffer, ...], batch: int, trace: Trace | None = None
    ) -> Tensor:
        """The stream [R, S, D] after the layers; ``batch`` counts all rows of the cache, R those with new units.

        ``trace`` gets what each layer puts out.
        """
        if not len(self.layers) or not units.size:
            if trace is not None:
                trace.extend([(units, x_RSD)] * len(self.layers))
            return x_RSD
        metadata = self._metadata(x_RSD, units, buffers[0] if buffers else None, batch)
        checkpointed = self.gradient_checkpointing and self.training
        for index, layer in enumerate(self.layers):
            if checkpointed:
                x_RSD = self._gradient_checkpointing_func(layer.__call__, x_RSD, metadata, index)
            else:
                x_RSD = layer(x_RSD, metadata, index)
            if trace is not None:
                trace.append((units, x_RSD))
        return x_RSD

    def _metadata(self, x_RSD: Tensor, units: Units, buffer: Buffer | None, batch: int) -> Metadata | PackedMetadata:
        dtype = compute_dtype(x_RSD)
        if units.indices is not None:
            return self._packed(units.indices, x_RSD, dtype)
        place = None if buffer is None else buffer.reserve(units, batch, dtype, x_RSD.device)
        return self._checked(self._heads.prepare(units, buffer, place, self.rotary, x_RSD, dtype))

    def _packed(self, indices: Indices, x_RSD: Tensor, dtype: torch.dtype) -> PackedMetadata:
        bundles = []
        for places_nL in indices.bundles(self.stride, x_RSD.device):
            rows = x_RSD.new_empty(*places_nL.shape, 0)
            metadata = self._heads.prepare(Units(0, rows.shape[1]), None, None, self.rotary, rows, dtype)
            bundles.append((places_nL, self._checked(metadata)))
        return PackedMetadata(bundles=tuple(bundles), places=indices.on(x_RSD.device)["places", self.stride])

    def _checked(self, metadata: Metadata) -> Metadata:
        return replace(metadata, checkpointed=True) if self.gradient_checkpointing and self.training else metadata
