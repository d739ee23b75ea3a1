"""The optimizer of a run: what decays, what Muon is for, and a step that the device can leave out by itself."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from foveate.errors import FoveateError
from foveate.train.build import decayed_parameters
from foveate.train.settings import TrainSettings

BETAS = (0.9, 0.95)


def make_optimizer(model: nn.Module, settings: TrainSettings, names: Set[str]) -> Any:
    """An optimizer of the parameters of these names: AdamW, or Muon for matrices that multiply, which alone decay.

    Where its ``found_inf`` is 1 when it steps, neither weights nor its own state change.

    Raises:
        FoveateError: this torch has no Muon.
    """
    decayed = set(decayed_parameters(model))
    known = [(name, parameter) for name, parameter in model.named_parameters() if name in names]
    matrices: dict[str, Any] = {"params": [p for name, p in known if name in decayed]}
    others: dict[str, Any] = {"params": [p for name, p in known if name not in decayed], "weight_decay": 0.0}
    lr, decay = settings.lr or 0.0, settings.weight_decay
    # fused: three times as fast as the others on a CPU, and the fastest on GPUs
    if settings.optimizer == "adamw":
        return AdamW([matrices | {"weight_decay": decay}, others], lr=lr, betas=BETAS, fused=True)
    if not hasattr(torch.optim, "Muon"):
        raise FoveateError("--optimizer muon needs torch 2.9 or newer")
    # its rates are then those of AdamW
    muon = torch.optim.Muon([matrices], lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    return MuonWithAdamW(muon, AdamW([others], lr=lr, betas=BETAS, fused=True) if others["params"] else None)


class MuonWithAdamW:
    """Muon and AdamW as one optimizer."""

    found_inf: Tensor

    def __init__(self, muon: torch.optim.Muon, adamw: AdamW | None) -> None:
        self.both: list[torch.optim.Optimizer] = [muon] if adamw is None else [muon, adamw]
        self.muon = muon
        self.adamw = adamw

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.both for group in optimizer.param_groups]

    @torch.no_grad()
    def step(self) -> None:
        if self.adamw is not None:
            self.adamw.found_inf = self.found_inf  # type: ignore[attr-defined]
            self.adamw.step()
        # Muon takes every step: one that was no good is taken back, without asking the device
        stepped = [p for group in self.muon.param_groups for p in group["params"] if p.grad is not None]
        before = [(p.clone(), self._momentum(p).clone()) for p in stepped]
        self.muon.step()
        for p, (weight, momentum) in zip(stepped, before, strict=True):
            p.copy_(torch.where(self.found_inf > 0, weight, p))
            kept = self.muon.state[p]["momentum_buffer"]
            kept.copy_(torch.where(self.found_inf > 0, momentum, kept))

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.muon.state.get(parameter, {})
        return state.get("momentum_buffer", torch.zeros_like(parameter))

    def zero_grad(self) -> None:
        for optimizer in self.both:
            optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """As of one optimizer: parameters are numbered on from Muon's to AdamW's."""
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        for first, optimizer in self._numbered():
            its = optimizer.state_dict()
            state |= {first + index: slots for index, slots in its["state"].items()}
            groups += [
                group | {"params": [first + index for index in group["params"]]} for group in its["param_groups"]
            ]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, whole: dict[str, Any]) -> None:
        for first, optimizer in self._numbered():
            last = first + sum(len(group["params"]) for group in optimizer.param_groups)
            state = {index - first: slots for index, slots in whole["state"].items() if first <= index < last}
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

    def _numbered(self) -> list[tuple[int, torch.optim.Optimizer]]:
        return list(zip((0, sum(len(group["params"]) for group in self.muon.param_groups)), self.both, strict=False))


def set_rate(optimizer: Any, rate: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate
