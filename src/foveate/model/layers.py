"""The transformer layer every level is made of, and a run of them on one level.

Shape legend: R rows, S units, D width, H heads, K key-value heads, d head width, F feed-forward width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from torch import Tensor, nn
from torch.nn.functional import silu

from foveate import spec
from foveate.model.attention import FullAttention, Heads, View, WindowAttention
from foveate.model.clock import Span
from foveate.model.fovea import FoveaAttention
from foveate.model.linear import Linear
from foveate.model.rotary import Rotary, compute_dtype
from foveate.model.streams import Trace
from foveate.model.tape import Tape

ATTENTIONS: dict[str, type[Heads]] = {"full": FullAttention, "window": WindowAttention, "fovea": FoveaAttention}


class Layer(nn.Module):
    """Pre-norm attention and SwiGLU, query-key-value and gate-up each as one matrix product."""

    def __init__(self, level: spec.Level, attention: spec.Attention, eps: float, depth: int) -> None:
        super().__init__()
        D, d, F = level.width, level.head_dim, level.feed_forward
        self.all_heads = (level.heads + 2 * level.kv_heads, d)
        self.attention_norm = nn.RMSNorm(D, eps)
        self.qkv_proj = Linear(D, self.all_heads[0] * d)
        self.attention = ATTENTIONS[attention.kind](level, attention)
        self.o_proj = Linear(level.heads * d, D)
        self.mlp_norm = nn.RMSNorm(D, eps)
        self.gate_up_proj = Linear(D, 2 * F)
        self.down_proj = Linear(F, D)
        for branch in (self.o_proj, self.down_proj):
            branch.depth = depth

    def forward(self, x_RSD: Tensor, view: View, index: int) -> Tensor:
        """``index`` is the layer's place in its run, and so in the tape of ``view``."""
        qkv = self.qkv_proj(self.attention_norm(x_RSD)).unflatten(-1, self.all_heads)
        x_RSD = x_RSD + self.o_proj(self.attention(qkv, view, index).flatten(2))
        gate, up = self.gate_up_proj(self.mlp_norm(x_RSD)).chunk(2, -1)
        return x_RSD + self.down_proj(silu(gate) * up)


class Run(nn.Module):
    """``run.layers`` layers on one level; its tape holds their keys and values."""

    gradient_checkpointing = False  # both are switched by transformers
    _gradient_checkpointing_func: Callable[..., Tensor]

    def __init__(self, run: spec.Run, level: spec.Level, *, depth: int, theta: float, eps: float) -> None:
        """``depth`` counts the layers of the level in all its runs."""
        super().__init__()
        self.stride = run.stride
        self.level = level
        self.layers = nn.ModuleList(Layer(level, run.attention, eps, depth) for _ in range(run.layers))
        self.rotary = Rotary(level.head_dim, theta)

    def make_tapes(self) -> tuple[Tape, ...]:
        if not len(self.layers):
            return ()
        return (self._first.attention.make_tape(self.stride, len(self.layers)),)

    @property
    def _first(self) -> Layer:
        return cast(Layer, self.layers[0])

    def forward(
        self, x_RSD: Tensor, span: Span, tapes: tuple[Tape, ...], batch: int, trace: Trace | None = None
    ) -> Tensor:
        """The stream [R, S, D] after the run's layers; ``batch`` counts all rows of the cache, R those in the span.

        ``trace`` gets what each layer puts out.
        """
        if not len(self.layers) or not span.size:
            if trace is not None:
                trace.extend([(span, x_RSD)] * len(self.layers))
            return x_RSD
        tape = tapes[0] if tapes else None
        if tape is not None:
            tape.reserve(span, batch, compute_dtype(x_RSD), x_RSD.device)
        view = self._first.attention.prepare(span, tape, self.rotary, x_RSD)
        checkpointed = self.gradient_checkpointing and self.training
        if checkpointed:
            view = replace(view, checkpointed=True)
        for index, layer in enumerate(self.layers):
            if checkpointed:
                x_RSD = self._gradient_checkpointing_func(layer.__call__, x_RSD, view, index)
            else:
                x_RSD = layer(x_RSD, view, index)
            if trace is not None:
                trace.append((span, x_RSD))
        return x_RSD
