"""A run against a loop written out by hand, and the clock of its log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from foveate.backends import cpu
from foveate.loading import load
from foveate.train.build import build_model
from foveate.train.metrics import read_metrics
from foveate.train.run import resume, train
from foveate.train.settings import TrainSettings
from foveate.train.trainer import Trainer
from train.comparing import Killed, assert_same_run, elsewhere, kill_at, weights


def by_hand(settings: TrainSettings, tokenizer, *, betas=(0.9, 0.95), longest: float = 1.0) -> dict[str, torch.Tensor]:
    """The weights after all steps, from the definitions: blocks in the seed's order, their mean loss, AdamW."""
    text = [*Path(settings.data[0]).read_bytes(), tokenizer.eos_token_id]
    starts = range(0, len(text) - settings.context, settings.context - 1)
    blocks = torch.tensor([text[start : start + settings.context] for start in starts])  # the last, in part: not drawn
    order = torch.randperm(len(blocks) + 1, generator=torch.Generator().manual_seed(settings.seed)).tolist()
    assert len(blocks) not in order[: settings.steps * settings.batch]
    model = cpu.accelerate(build_model(settings, tokenizer))
    first, second = ({name: torch.zeros_like(p) for name, p in model.named_parameters()} for _ in range(2))
    for step in range(1, settings.steps + 1):
        ids_BT = blocks[order[(step - 1) * settings.batch : step * settings.batch]]
        logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
        model.zero_grad()
        cross_entropy(logits_BTV[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten()).backward()
        norm = torch.stack([p.grad.square().sum() for p in model.parameters()]).sum().sqrt()
        rate = settings.lr * (1 - (1 - settings.final_lr) * (step - 1) / (settings.steps - 1))
        with torch.no_grad():
            for name, p in model.named_parameters():
                gradient = p.grad / max(1.0, (norm / longest).item())
                first[name] = betas[0] * first[name] + (1 - betas[0]) * gradient
                second[name] = betas[1] * second[name] + (1 - betas[1]) * gradient**2
                if p.dim() == 2 and "embed" not in name:
                    p -= rate * settings.weight_decay * p
                estimate = (second[name] / (1 - betas[1] ** step)).sqrt() + 1e-8
                p -= rate * first[name] / (1 - betas[0] ** step) / estimate
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_is_what_a_loop_by_hand_does(accumulate, settings, tokenizer) -> None:
    settings = replace(
        settings, tokens=3 * 128, schedule="linear", warmup=0.0, lr=3e-3, valid_fraction=0.0, walk="1@1", seed=3,
        weight_decay=0.5, accumulate=accumulate, log_every=1,
    )  # fmt: skip
    result = train(settings)
    assert min(record["grad_norm"] for record in read_metrics(result.path)) > 1.2, "nothing was clipped"
    trained, expected = weights(result.path), by_hand(settings, tokenizer)
    for name, weight in expected.items():
        torch.testing.assert_close(trained[name], weight, atol=2e-6, rtol=0)
    for other in ({"longest": 2.0}, {"betas": (0.9, 0.999)}):  # the comparison is sharp enough to see these
        off = by_hand(settings, tokenizer, **other)
        assert max((off[name] - trained[name]).abs().max() for name in off) > 1e-5


def test_tokens_per_second_are_those_of_whole_steps_without_validation(settings, monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr("foveate.train.ledger.time.perf_counter", lambda: now[0])
    compute_loss, evaluate = Trainer.compute_loss, Trainer.evaluate

    def half_a_second(self, *args):
        now[0] += 0.5
        return compute_loss(self, *args)

    def a_minute(self):
        with self.ledger.untimed():
            now[0] += 60.0
        evaluate(self)

    monkeypatch.setattr(Trainer, "compute_loss", half_a_second)
    monkeypatch.setattr(Trainer, "evaluate", a_minute)
    result = train(replace(settings, accumulate=2))
    records = [record for record in read_metrics(result.path) if record["kind"] == "train"]
    assert {record["tokens_per_s"] for record in records} == {128.0}
    assert records[-1]["elapsed"] == 12 + 2 * 60


def test_no_sequence_comes_twice_before_all_have_come(settings, monkeypatch) -> None:
    seen: list[bytes] = []
    compute_loss = Trainer.compute_loss
    monkeypatch.setattr(
        Trainer,
        "compute_loss",
        lambda self, inputs_BT, targets: (
            seen.extend(bytes(row.tolist()) for row in inputs_BT["input_ids"].clamp(max=255))
            or compute_loss(self, inputs_BT, targets)
        ),
    )
    train(replace(settings, batch=6, accumulate=2, tokens=6 * 32 * 8))
    assert len(seen) == len(set(seen)) == 48


def test_the_step_that_is_taken_is_compiled_and_nothing_else(settings, undisturbed, monkeypatch, capsys) -> None:
    compiled = []

    def compile_model(model):
        def call(**inputs):
            compiled.append(inputs["input_ids"].shape)
            return model(**inputs)

        return call

    monkeypatch.setattr(torch, "compile", compile_model)
    result = train(replace(settings, compile=True))
    assert compiled == [(4, 32)] * 12
    assert "compiling the model: the next step takes minutes" in capsys.readouterr().err
    assert_same_run(result, undisturbed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
def test_a_compiled_run_is_the_plain_one_and_resumes_to_the_bit(settings) -> None:
    torch.compiler.reset()
    plain = train(replace(settings, walk="1@1", valid_fraction=0.0, out=f"{settings.out}-plain"))
    settings = replace(settings, walk="1@1", valid_fraction=0.0, compile=True)
    with pytest.raises(Killed):
        train(settings, on_record=kill_at(8, "train"))
    result = resume(settings.out)
    assert result.train["loss"] == pytest.approx(plain.train["loss"], rel=1e-4)
    assert_same_run(result, train(elsewhere(settings)))
    model, _ = load(result.path)
    assert model.config.walk == settings.walk
