"""Losses and gradients that are no numbers, or far too large: the run stops before saving them, or skips the step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from foveate.errors import FoveateError
from foveate.train.run import resume, train
from foveate.train.trainer import Trainer
from train.comparing import Killed, assert_same_run, elsewhere, kill_at, log


def spoil(monkeypatch, *steps: int, factor: float = float("nan")) -> None:
    """Multiply the loss of those steps, counted from 1."""
    healthy = Trainer.compute_loss

    def compute_loss(self, *args, **kwargs):
        loss = healthy(self, *args, **kwargs)
        return loss * factor if self.step in steps else loss

    monkeypatch.setattr(Trainer, "compute_loss", compute_loss)


@pytest.mark.parametrize(
    ("factor", "what"),
    [(float("nan"), "the loss was nan"), (1e3, r"the loss was [34]\d\d\d"), (float("inf"), "the loss was inf")],
)
def test_a_loss_that_is_no_number_or_explodes_stops_before_it_is_saved(settings, monkeypatch, factor, what) -> None:
    spoil(monkeypatch, 7, factor=factor)
    place = r"document \d tokens \d+-\d+"
    line = rf"{what} at step 7, on {place}, {place}, {place} and 1 more; .*checkpoint-5 is from before: .* --resume"
    with pytest.raises(FoveateError, match=line):
        train(settings)
    assert [record["step"] for record in log(settings.out) if record["kind"] == "train"] == [2, 4, 6]


def test_the_checkpoint_after_a_bad_step_is_not_written(settings, monkeypatch) -> None:
    spoil(monkeypatch, 5)
    with pytest.raises(FoveateError, match=r"the loss was nan at step 5, .*; nothing was saved before"):
        train(settings)
    assert not list(Path(settings.out).glob("checkpoint-*"))


def test_a_gradient_that_is_no_number_stops_the_run(settings, monkeypatch) -> None:
    class BadGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * float("inf")

    healthy = Trainer.compute_loss
    monkeypatch.setattr(Trainer, "compute_loss", lambda *a, **k: BadGradient.apply(healthy(*a, **k)))
    with pytest.raises(FoveateError, match="the gradient was not a finite number at step 1, on document"):
        train(settings)


def test_bad_steps_are_skipped_if_asked_and_leave_no_trace(settings, monkeypatch, capsys) -> None:
    """The weights and Adam's state are those of a run without those updates; a kill in between changes nothing."""
    settings = replace(settings, on_nan="skip", schedule="constant", warmup=0.0)
    spoil(monkeypatch, 6, 7, 9)
    result = train(settings)
    assert "step 7/12: skipped, its loss was no finite number" in capsys.readouterr().err
    records = log(settings.out)
    assert [(record["step"], record["loss"]) for record in records if record["kind"] == "skipped"] == [
        *[(6, None), (7, None), (9, None)]
    ]
    assert records[-1]["step"] == 12
    with safe_open(result.path / "checkpoint-12" / "optimizer.safetensors", "pt") as file:
        assert file.get_tensor("0.step").item() == 9

    with pytest.raises(Killed):
        train(elsewhere(settings), on_record=kill_at(7, "skipped"))
    assert_same_run(resume(elsewhere(settings).out), result)


def test_a_stopped_run_may_go_on_by_skipping(settings, monkeypatch) -> None:
    spoil(monkeypatch, 7)
    with pytest.raises(FoveateError, match="or leave such steps out with --on-nan skip"):
        train(settings)
    assert_same_run(resume(settings.out, {"on_nan": "skip"}), train(replace(elsewhere(settings), on_nan="skip")))


def test_skipping_gives_up_where_no_step_is_good(settings, monkeypatch) -> None:
    spoil(monkeypatch, *range(3, 40))
    line = "the loss was nan at step 22, the last of 20 such in a row"
    with pytest.raises(FoveateError, match=line):
        train(replace(settings, on_nan="skip", tokens=40 * 128))
