"""What long runs try that the package does not offer: changes to a model that has been built, and an optimizer.

Each is a few hooks or a replaced method of one module, for training alone: fresh rows of equal length, no cache.

Legend: R rows, S units, k finer units per coarser one, H heads, K key-value heads, d head width, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from variants import add_convolutions

from foveate.errors import FoveateError
from foveate.model.layers import Layer, Stack
from foveate.model.resample import Downsample, Upsample
from foveate.model.rotary import Rotary
from foveate.train.build import decayed_parameters

PARTS = {"qkv_proj": 3, "gate_up_proj": 2}  # matrices that lie in one parameter
MUON = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")


class HeadNorms(nn.Module):
    """Norms of every head's queries and keys, before they are rotated."""

    def __init__(self, heads: int, kv_heads: int, head_dim: int, eps: float) -> None:
        super().__init__()
        self.shares = (heads, kv_heads, kv_heads)
        self.q_norm, self.k_norm = nn.RMSNorm(head_dim, eps), nn.RMSNorm(head_dim, eps)

    def forward(self, qkv: Tensor) -> Tensor:
        q, k, v = qkv.unflatten(-1, (sum(self.shares), -1)).split(self.shares, -2)
        return torch.cat((self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v), -2).flatten(-2)


class ValueResidual(nn.Module):
    """Mixes into a layer's values those of the first layer of its level, half and half at the start."""

    def __init__(self, width: int, firsts: dict[int, Tensor], stride: int, *, first: bool) -> None:
        super().__init__()
        self.width, self.stride, self.first = width, stride, first
        self.firsts = firsts
        self.share = None if first else nn.Parameter(torch.zeros(()))

    def forward(self, qkv: Tensor) -> Tensor:
        values = qkv[..., -self.width :]
        if self.share is None:
            self.firsts[self.stride] = values
            return qkv
        share = torch.sigmoid(self.share).to(qkv.dtype)
        return torch.cat((qkv[..., : -self.width], values + share * (self.firsts[self.stride] - values)), -1)


class OverlappingPool(nn.Module):
    """Units of 2k members, k of them the unit's own: a softmax over members for every channel, as in DeepSeek-V4."""

    def __init__(self, pool: Downsample) -> None:
        super().__init__()
        if pool.kind != "mean":
            raise FoveateError(f"--overlap: it takes the place of mean pooling, not of {pool.kind}")
        self.k, width = pool.factor, pool.fine.width
        self.norm, self.proj = pool.norm, pool.proj
        self.gate = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.gate.weight)
        # at the start nearly the mean of the unit's own members
        self.place_bias = nn.Parameter(torch.cat((torch.full((self.k, width), -3.0), torch.zeros(self.k, width))))

    def forward(self, x_RTD: Tensor, *_: Any) -> Tensor:
        S = x_RTD.shape[1] // self.k
        members = self.norm(x_RTD[:, : S * self.k])
        logits = self.gate(members)
        both, scores = (pad(part, (0, 0, self.k, 0)).unfold(1, 2 * self.k, self.k) for part in (members, logits))
        scores_RSDk = scores.float() + self.place_bias.t()
        first = torch.arange(2 * self.k, device=x_RTD.device) < self.k  # of the first unit: nothing lies before it
        none = first & (torch.arange(S, device=x_RTD.device)[:, None, None] == 0)
        weights = torch.softmax(scores_RSDk.masked_fill(none, -torch.inf), -1)
        return self.proj((weights * both).sum(-1)).to(x_RTD.dtype)


class ExpandGate(nn.Module):
    """What a unit adds to a finer stream, times a gate per channel that the finer stream decides; 1 at the start."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.norm, self.proj = nn.RMSNorm(width, eps), nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.proj.weight)

    def forward(self, x_RTD: Tensor, y_RTD: Tensor) -> Tensor:
        return x_RTD + (y_RTD - x_RTD) * (2 * torch.sigmoid(self.proj(self.norm(x_RTD))))


def _after(module: nn.Module, name: str, change: nn.Module, call: Callable[..., Tensor]) -> None:
    module.add_module(name, change)
    module.register_forward_hook(call)


def add_head_norms(model: Any) -> None:
    for run, layer in _layers(model):
        level = model.config.spec.level(run.stride)
        norms = HeadNorms(level.heads, level.kv_heads, level.head_dim, model.config.rms_norm_eps)
        _after(layer.qkv_proj, "head_norms", norms, lambda _, __, qkv, change=norms: change(qkv))


def add_value_residuals(model: Any) -> None:
    firsts: dict[int, Tensor] = {}
    seen: set[int] = set()
    for run, layer in _layers(model):
        level = model.config.spec.level(run.stride)
        mix = ValueResidual(level.kv_heads * level.head_dim, firsts, run.stride, first=run.stride not in seen)
        seen.add(run.stride)
        _after(layer.qkv_proj, "value_residual", mix, lambda _, __, qkv, change=mix: change(qkv))


def overlap_pools(model: Any) -> None:
    for step in model.model.decoder.steps:
        if isinstance(step, Downsample):
            overlapping = OverlappingPool(step)
            step.add_module("overlapping", overlapping)
            step.forward = overlapping.forward


def gate_expansions(model: Any) -> None:
    for step in model.model.decoder.steps:
        if isinstance(step, Upsample):
            gate = ExpandGate(step.fine.width, model.config.rms_norm_eps)
            _after(step, "gate", gate, lambda _, inputs, y, change=gate: change(inputs[0], y))


def set_coarse_theta(model: Any, theta: float) -> None:
    """Rotary base ``theta`` at stride 4, a fourth of it for each further factor of 4."""
    for run in [module for module in model.modules() if isinstance(module, Stack) and module.stride > 1]:
        level = model.config.spec.level(run.stride)
        run.rotary = Rotary(level.head_dim, theta * 4 / run.stride)


def _layers(model: Any) -> list[tuple[Stack, Layer]]:
    runs = [module for module in model.modules() if isinstance(module, Stack)]
    return [(run, layer) for run in runs for layer in run.layers]


def change(model: Any, variant: Any) -> None:
    """Apply what ``variant`` (the options of long.py) asks for."""
    if variant.taps:
        add_convolutions(model, variant.taps)
    if variant.qk_norm:
        add_head_norms(model)
    if variant.value_residual:
        add_value_residuals(model)
    if variant.overlap:
        overlap_pools(model)
    if variant.expand_gate:
        gate_expansions(model)
    if variant.coarse_theta:
        set_coarse_theta(model, variant.coarse_theta)
    for _, layer in _layers(model):
        for branch in (layer.o_proj, layer.down_proj):
            branch.weight.data *= variant.branch_scale


class Muon:
    """Momentum whose update of every matrix is made orthogonal, by five Newton-Schulz steps in bf16.

    For the matrices of the layers, at AdamW's own rate and decay (an update's root mean square is 0.2, about that of
    AdamW's). Matrices of one shape are worked on together, those that lie in one parameter each by itself.
    """

    def __init__(self, named: dict[str, nn.Parameter], lr: Tensor, *, momentum: float = 0.95, decay: float) -> None:
        self.lr, self.momentum, self.decay = lr, momentum, decay
        self.groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for name, parameter in named.items():
            parts = PARTS.get(name.split(".")[-2], 1)
            self.groups.setdefault((parts, *parameter.shape), []).append(parameter)
        self.momenta = {key: torch.zeros(len(of), *key[1:], device=lr.device) for key, of in self.groups.items()}

    @torch.no_grad()
    def step(self) -> None:
        for key, parameters in self.groups.items():
            parts, rows, columns = key
            grads = torch.stack([parameter.grad for parameter in parameters])
            momentum = self.momenta[key].lerp_(grads, 1 - self.momentum)
            nesterov = grads.lerp(momentum, self.momentum)
            update = orthogonal(nesterov.view(-1, rows // parts, columns)).view_as(grads).float()
            update *= -0.2 * max(rows // parts, columns) ** 0.5 * self.lr
            torch._foreach_mul_(parameters, 1 - self.lr * self.decay)
            torch._foreach_add_(parameters, list(update.unbind()))


def orthogonal(x_NRC: Tensor, steps: int = 5) -> Tensor:
    """Matrices with the same singular vectors, and singular values near 1, in bf16."""
    x = x_NRC.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


def make_optimizers(model: nn.Module, lr: Tensor, decay: float, *, muon: bool) -> list[Any]:
    """AdamW as ``foveate train`` has it, for all parameters or (``muon``) for those that are no matrices of layers.

    ``lr`` is a tensor on the model's device, read at every step: a step can then be recorded as a CUDA graph.
    """
    parameters = dict(model.named_parameters())
    matrices = {name: parameters[name] for name in decayed_parameters(model)}
    hidden = {name: p for name, p in matrices.items() if muon and name.split(".")[-2] in MUON}
    others = [p for name, p in parameters.items() if name not in matrices]
    groups = [
        {"params": [p for name, p in matrices.items() if name not in hidden], "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
    ]
    on_gpu = lr.device.type == "cuda"
    groups = [group for group in groups if group["params"]]
    adamw = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True, capturable=on_gpu)
    return [adamw, Muon(hidden, lr, decay=decay)] if hidden else [adamw]
