"""The optimizer of a run: which parameters decay, and at what rate they learn."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from foveate.train.build import decayed_parameters
from foveate.train.settings import TrainSettings

BETAS = (0.9, 0.95)


def make_optimizer(model: nn.Module, settings: TrainSettings) -> Optimizer:
    """AdamW on all parameters, of which matrices that multiply decay; ``found_inf`` of 1 makes a step none."""
    decayed = set(decayed_parameters(model))
    matrices = [parameter for name, parameter in model.named_parameters() if name in decayed]
    others = [parameter for name, parameter in model.named_parameters() if name not in decayed]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    # fused: three times as fast as the others on a CPU, and the fastest on GPUs
    return AdamW(groups, lr=settings.lr or 0.0, betas=BETAS, fused=True)


def set_rate(optimizer: Optimizer, rate: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate
