"""What a step does to a gradient before it does anything to weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foveate.train import trainer
from foveate.train.metrics import read_metrics
from foveate.train.optimizer import make_optimizer, set_rate
from foveate.train.run import train


def test_a_long_gradient_is_shortened_and_the_log_says_how_long_it_was(settings, monkeypatch) -> None:
    lengths = []

    def noting(model, settings, names):
        optimizer = make_optimizer(model, settings, names)
        step = optimizer.step

        def stepped() -> None:
            lengths.append(sum(p.grad.pow(2).sum().item() for p in model.parameters() if p.grad is not None) ** 0.5)
            step()

        monkeypatch.setattr(optimizer, "step", stepped)
        return optimizer

    monkeypatch.setattr(trainer, "make_optimizer", noting)
    monkeypatch.setattr(trainer, "MAX_NORM", 0.01)
    result = train(replace(settings, tokens=2 * 4 * 32, log_every=1, valid_fraction=0.0))
    assert lengths == pytest.approx([0.01, 0.01], rel=1e-3)
    logged = [record["grad_norm"] for record in read_metrics(result.path) if record["kind"] == "train"]
    assert min(logged) > 0.1


def test_matrices_alone_decay_and_a_rate_is_that_of_all(settings) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    optimizer = make_optimizer(
        model, replace(settings, lr=0.5, weight_decay=0.25), {n for n, _ in model.named_parameters()}
    )
    for p in model.parameters():
        torch.nn.init.constant_(p, 1.0)
        p.grad = torch.zeros_like(p)
    assert set_rate(optimizer, 0.5) == 0.5
    optimizer.step()
    weight, *others = model.parameters()
    assert torch.equal(weight, torch.full_like(weight, 1 - 0.5 * 0.25))  # no gradient: decay is all there is
    assert all(torch.equal(p, torch.ones_like(p)) for p in others)
    set_rate(optimizer, 0.0)
    optimizer.step()
    assert torch.equal(weight, torch.full_like(weight, 1 - 0.5 * 0.25))
