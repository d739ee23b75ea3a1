"""The transformer layer every level is made of, and a run of them on one level.

Shape legend: R rows, S units, D width, H heads, K key-value heads, d head width, F feed-forward width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from foveate import spec
from foveate.model.attention import FullAttention, WindowAttention
from foveate.model.cache import Tape
from foveate.model.clock import Span

TABLE_POSITIONS = 16_384  # positions whose rotations are kept in a table; those beyond are computed as they come


class Rotary:
    """Rotary positions in units of a level: cosines and signed sines for pairs (i, i + d/2), as Llama pairs them."""

    def __init__(self, head_dim: int, theta: float) -> None:
        self.head_dim = head_dim
        self.theta = theta
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Rotary:
        return Rotary(self.head_dim, self.theta)

    def __call__(self, span: Span, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of a span's positions, [S, 1, d] or [R, S, 1, d], in the type matrix products will have."""
        device = x.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else x.dtype
        if span.longest > TABLE_POSITIONS or torch.compiler.is_compiling():
            cos, sin = self._compute(span.positions(device), dtype)
        else:
            cos, sin = self._table(span.longest, device, dtype)
            at: Any = slice(span.start, span.end) if span.even else span.positions(device).clamp(max=span.longest - 1)
            cos, sin = cos[at], sin[at]
        return cos.unsqueeze(-2), sin.unsqueeze(-2)

    def _table(self, positions: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        key = (device, dtype)
        if key not in self._tables or len(self._tables[key][0]) < positions:
            size = min(TABLE_POSITIONS, max(512, 2 * positions))
            with torch.inference_mode(False), torch.no_grad():
                self._tables[key] = self._compute(torch.arange(size, device=device), dtype)
        return self._tables[key]

    def _compute(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        # in fp64: at a million tokens an fp32 angle is off by a sixteenth of a radian
        half = torch.arange(0, self.head_dim, 2, dtype=torch.float64, device=positions.device) / self.head_dim
        angles = positions[..., None].double() * self.theta**-half
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)


def rotate(x_RSHd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.addcmul(x_RSHd * cos, x_RSHd.roll(x_RSHd.shape[-1] // 2, -1), sin)


def make_attention(attention: spec.Attention) -> FullAttention | WindowAttention:
    if attention.kind == "full":
        return FullAttention()
    if attention.kind == "window":
        assert attention.window is not None
        return WindowAttention(attention.window)
    raise NotImplementedError(attention.kind)


class Layer(nn.Module):
    """Pre-norm attention and SwiGLU, query-key-value and gate-up each as one matrix product."""

    def __init__(self, level: spec.Level, attention: spec.Attention, eps: float) -> None:
        super().__init__()
        D, d, F = level.width, level.head_dim, level.feed_forward
        self.heads, self.kv_heads, self.head_dim = level.heads, level.kv_heads, d
        self.attention_norm = nn.RMSNorm(D, eps)
        self.qkv_proj = nn.Linear(D, (level.heads + 2 * level.kv_heads) * d, bias=False)
        self.attention = make_attention(attention)
        self.o_proj = nn.Linear(level.heads * d, D, bias=False)
        self.mlp_norm = nn.RMSNorm(D, eps)
        self.gate_up_proj = nn.Linear(D, 2 * F, bias=False)
        self.down_proj = nn.Linear(F, D, bias=False)

    def forward(self, x_RSD: Tensor, cos: Tensor, sin: Tensor, view: Any, index: int) -> Tensor:
        H, K = self.heads, self.kv_heads
        qkv = self.qkv_proj(self.attention_norm(x_RSD)).unflatten(-1, (H + 2 * K, self.head_dim))
        q, k = rotate(qkv[:, :, : H + K], cos, sin).split((H, K), 2)
        x_RSD = x_RSD + self.o_proj(self.attention(q, k, qkv[:, :, H + K :], view, index).flatten(2))
        gate, up = self.gate_up_proj(self.mlp_norm(x_RSD)).chunk(2, -1)
        return x_RSD + self.down_proj(silu(gate) * up)


class Run(nn.Module):
    """``run.layers`` layers on one level; its tape holds their keys and values."""

    gradient_checkpointing = False  # switched by transformers, together with _gradient_checkpointing_func

    def __init__(self, run: spec.Run, level: spec.Level, *, theta: float, eps: float) -> None:
        super().__init__()
        self.stride = run.stride
        self.level = level
        self.layers = nn.ModuleList(Layer(level, run.attention, eps) for _ in range(run.layers))
        self.rotary = Rotary(level.head_dim, theta)

    def make_tapes(self) -> tuple[Tape, ...]:
        if not len(self.layers):
            return ()
        return (Tape(stride=self.stride, keep=self.layers[0].attention.keep, layers=len(self.layers), parts=2),)

    def forward(self, x_RSD: Tensor, span: Span, tapes: tuple[Tape, ...], batch: int) -> Tensor:
        """The stream [R, S, D] after the run's layers; ``batch`` counts all rows of the cache, R those in the span."""
        if not len(self.layers) or not span.size:
            return x_RSD
        tape = tapes[0] if tapes else None
        cos, sin = self.rotary(span, x_RSD)
        if tape is not None:
            tape.reserve(span, batch, self.level.kv_heads, self.level.head_dim, like=cos)
        view = self.layers[0].attention.prepare(span, tape, x_RSD.device)
        for index, layer in enumerate(self.layers):
            if self.gradient_checkpointing and self.training:
                x_RSD = self._gradient_checkpointing_func(layer.__call__, x_RSD, cos, sin, view, index)
            else:
                x_RSD = layer(x_RSD, cos, sin, view, index)
        return x_RSD
