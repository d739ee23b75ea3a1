"""Whole runs of a tiny model: what they leave, and that nothing which happens to them changes it."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from foveate.errors import FoveateError
from foveate.loading import load
from foveate.train import folder, state
from foveate.train import run as run_module
from foveate.train import trainer as trainer_module
from foveate.train.metrics import read_metrics
from foveate.train.run import open_validation, resume, train
from foveate.train.settings import SETTINGS_FILE, TrainSettings, read_settings_file
from foveate.train.trainer import Trainer
from train.comparing import Killed, assert_same_run, elsewhere, kill_at, log, weights


def test_leaves_a_complete_model(undisturbed) -> None:
    run = undisturbed.path
    assert (undisturbed.step, undisturbed.steps, undisturbed.finished, undisturbed.exit_code) == (12, 12, True, 0)
    assert {path.name for path in run.iterdir() if path.is_dir()} == {"checkpoint-10", "checkpoint-12"}
    assert not list(run.glob("*.bin"))

    model, tokenizer = AutoModelForCausalLM.from_pretrained(run), AutoTokenizer.from_pretrained(run)
    assert type(model).__name__ == "FoveateForCausalLM"
    assert model.config.use_cache
    assert tokenizer("ab")["input_ids"] == [256, 97, 98]
    ours, _ = load(run, device="cpu")
    ids = torch.tensor([[256, 97, 98, 99]])
    torch.testing.assert_close(ours(ids).logits, model(ids).logits)  # load keeps weights in another order

    records = read_metrics(run)
    assert [(record["kind"], record["step"]) for record in records] == [
        *[("train", 2), ("train", 4), ("valid", 5), ("train", 6), ("train", 8)],
        *[("train", 10), ("valid", 10), ("train", 12), ("valid", 12)],
    ]
    assert records[0]["tokens"] == 2 * 4 * 32
    assert records[-2]["loss"] < records[0]["loss"]
    assert undisturbed.valid == records[-1]


def test_can_be_repeated_from_its_settings_file(tmp_path, undisturbed) -> None:
    again = TrainSettings(**read_settings_file(undisturbed.path / SETTINGS_FILE))
    assert_same_run(undisturbed, train(replace(again, out=str(tmp_path / "again"))))


def test_the_loss_of_the_log_is_that_of_the_model(settings) -> None:
    """One step of accumulated parts, against the loss that the untrained model gives on the whole text."""
    settings = replace(settings, tokens=128, batch=4, accumulate=2, log_every=1, lr=0.0, valid_fraction=0.0)
    result = train(settings)
    model, _ = load(result.path, device="cpu")
    seen = list(Path(settings.data[0]).read_bytes())
    losses = []
    for start in range(0, len(seen) - 32, 31):
        ids = torch.tensor([seen[start : start + 32]])
        losses.append(model(ids, labels=ids).loss.item())
    # an untrained model is about as surprised by one part of the text as by another
    assert result.train["loss"] == pytest.approx(sum(losses) / len(losses), rel=0.02)


def test_accumulating_changes_only_rounding(settings, undisturbed) -> None:
    parts = train(replace(settings, accumulate=4))
    assert parts.train["loss"] == pytest.approx(undisturbed.train["loss"], rel=1e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("model", ["foveate", "llama"])
def test_trains_under_bf16_and_with_gradient_checkpointing(settings, model, checkpointing) -> None:
    settings = replace(
        settings, model=model, walk="2@1", dtype="bf16", gradient_checkpointing=checkpointing, tokens=512
    )
    result = train(settings)
    assert result.finished
    assert all(weight.dtype == torch.float32 for weight in weights(result.path).values())


@pytest.mark.parametrize(
    ("step", "when", "resumes_from"), [(4, "train", 0), (5, "valid", 0), (8, "train", 5), (12, "valid", 10)]
)
def test_a_killed_run_resumes_to_the_bit(settings, undisturbed, step, when, resumes_from, capsys) -> None:
    with pytest.raises(Killed):
        train(settings, on_record=kill_at(step, when))
    result = resume(settings.out)
    assert (f"checkpoint-{resumes_from}" if resumes_from else "no checkpoint yet") in capsys.readouterr().err
    assert_same_run(result, undisturbed)


def test_killed_again_and_again_resumes_to_the_bit(settings, undisturbed) -> None:
    with pytest.raises(Killed):
        train(settings, on_record=kill_at(6, "train"))
    for step, when in [(8, "train"), (10, "train"), (10, "valid"), (12, "valid")]:
        with pytest.raises(Killed):
            resume(settings.out, on_record=kill_at(step, when))
    assert_same_run(resume(settings.out), undisturbed)


def test_every_random_state_is_resumed(settings, monkeypatch) -> None:
    """Dropout, drawn from torch's generator, and noise from Python's and numpy's; bf16, batches in two parts."""
    build = run_module.build_model

    def build_noisy(*args):
        model = build(*args)

        def add_noise(module, inputs, output):
            if not module.training:
                return output
            noise = random.random() + np.random.rand()
            return torch.nn.functional.dropout(output, 0.2) * (1 + noise / 10)

        model.get_input_embeddings().register_forward_hook(add_noise)
        return model

    monkeypatch.setattr(run_module, "build_model", build_noisy)
    settings = replace(settings, dtype="bf16", accumulate=2)
    with pytest.raises(Killed):
        train(settings, on_record=kill_at(8, "train"))
    set_seed(1)
    with pytest.raises(Killed):
        resume(settings.out, on_record=kill_at(12, "train"))
    set_seed(2)
    assert_same_run(resume(settings.out), train(elsewhere(settings)))


def test_killed_while_the_finished_model_is_put_in_place(settings, undisturbed, monkeypatch) -> None:
    copy, copied = folder.copy_atomically, []

    def copy_some(source, target) -> None:
        if len(copied) == 2:
            raise Killed
        copied.append(target.name)
        copy(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(folder, "copy_atomically", copy_some)
        train(settings)
    model, _ = load(settings.out, device="cpu")  # from the checkpoint
    assert model.config.hidden_size == 32
    assert_same_run(resume(settings.out), undisturbed)


def test_the_log_of_a_checkpoint_replaces_a_damaged_one(settings, undisturbed) -> None:
    with pytest.raises(Killed):
        train(settings, on_record=kill_at(8, "train"))
    (Path(settings.out) / "metrics.jsonl").unlink()
    assert_same_run(resume(settings.out), undisturbed)


def test_settings_that_are_not_those_of_the_checkpoint_are_refused(settings) -> None:
    with pytest.raises(Killed):
        train(settings, on_record=kill_at(8, "train"))
    file = Path(settings.out) / SETTINGS_FILE
    file.write_text(file.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(FoveateError, match=r"foveate\.yaml says seed: 1, but checkpoint-5 was trained with 0"):
        resume(settings.out)


def test_the_best_checkpoint_stays(settings, monkeypatch) -> None:
    evaluate = trainer_module.evaluate

    def evaluate_best_at_five(model, *args, **kwargs):
        scored.append(5)
        return replace(evaluate(model, *args, **kwargs), bpb=float(len(scored)))

    scored: list[int] = []
    monkeypatch.setattr(trainer_module, "evaluate", evaluate_best_at_five)
    result = train(replace(settings, keep=1))
    assert {path.name for path in result.path.glob("checkpoint-*")} == {"checkpoint-5", "checkpoint-12"}


def test_a_half_written_checkpoint_is_passed_over(settings, undisturbed, capsys) -> None:
    with pytest.raises(Killed):
        train(settings, on_record=kill_at(12, "train"))
    newest = Path(settings.out) / "checkpoint-10" / "optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    (Path(settings.out) / ".saving" / "checkpoint-12").mkdir(parents=True)
    result = resume(settings.out)
    notes = capsys.readouterr().err
    assert "cleared away an unfinished checkpoint-12" in notes
    assert "passed over checkpoint-10: optimizer.safetensors has 1,000 bytes instead of" in notes
    assert "resuming from" in notes
    assert_same_run(result, undisturbed)


@pytest.mark.parametrize(
    ("number", "code", "step"), [(signal.SIGINT, 130, 6), (signal.SIGTERM, 143, 10), (signal.SIGINT, 130, 12)]
)
def test_a_signal_saves_and_the_run_resumes_to_the_bit(settings, undisturbed, number, code, step) -> None:
    """At steps 10 and 12 the signal arrives before the validation of that step, which the resumed run makes up for."""

    def on_record(record) -> None:
        if (record["kind"], record["step"]) == ("train", step):
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    stopped = train(settings, on_record=on_record)
    assert signal.getsignal(number) is handler
    assert (stopped.step, stopped.finished, stopped.exit_code) == (step, False, code)
    assert (stopped.path / f"checkpoint-{step}").is_dir()
    assert_same_run(resume(settings.out), undisturbed)


def test_a_second_ctrl_c_leaves_at_once(settings, undisturbed) -> None:
    def on_record(record) -> None:
        if record["step"] == 6:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(settings, on_record=on_record)
    assert_same_run(resume(settings.out), undisturbed)


def test_a_finished_run_can_be_made_longer(settings) -> None:
    short = train(replace(settings, schedule="constant"))
    longer = resume(short.path, {"tokens": 20 * 128})
    straight = train(replace(elsewhere(settings), schedule="constant", tokens=20 * 128, warmup=1))
    assert (longer.step, longer.finished) == (20, True)
    assert longer.train["loss"] == pytest.approx(straight.train["loss"], rel=0.05)


def test_a_run_cannot_be_made_shorter_than_it_is(undisturbed, tmp_path) -> None:
    run = shutil.copytree(undisturbed.path, tmp_path / "run")
    with pytest.raises(FoveateError, match=r"--tokens: .* has been trained on 1,536 already; give more"):
        resume(run, {"tokens": 1000})


def test_data_may_be_read_by_workers(settings, undisturbed) -> None:
    assert_same_run(train(replace(settings, workers=1)), undisturbed)


def test_a_learning_rate_can_be_changed_on_resuming(settings) -> None:
    with pytest.raises(Killed):
        train(settings, on_record=kill_at(8, "train"))
    result = resume(settings.out, {"lr": 1e-5})
    assert result.train["lr"] == pytest.approx(1e-6)


def test_resuming_a_finished_run_changes_nothing(settings) -> None:
    first = train(settings)
    before, records = weights(first.path), read_metrics(first.path)
    again = resume(first.path)
    assert again.finished
    assert read_metrics(first.path) == records
    assert all(torch.equal(before[name], weight) for name, weight in weights(again.path).items())


def test_other_data_under_the_same_name_is_refused(settings, tmp_path) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("One text. " * 400)
    first = train(replace(settings, data=(str(text),)))
    text.write_text("Another text. " * 400)
    with pytest.raises(FoveateError, match=r"the data of .* is not what it was"):
        resume(first.path)


def test_validates_on_data_of_its_own(settings, tmp_path) -> None:
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("the moon was far away " * 5)
    result = train(replace(settings, valid_data=(str(held_out),)))
    assert (result.valid["valid_tokens"], result.valid["valid_bytes"]) == (110, 110)
    _, tokenizer = load(result.path)
    assert len(open_validation(replace(settings, valid_data=(str(held_out),)), tokenizer).tokens) == 111


def test_without_validation_there_is_none(settings) -> None:
    settings = replace(settings, valid_fraction=0.0)
    result = train(settings)
    assert result.valid == {}
    _, tokenizer = load(result.path)
    with pytest.raises(FoveateError, match="held out no text"):
        open_validation(settings, tokenizer)


def test_weights_that_overflow_are_not_saved(settings, monkeypatch) -> None:
    def overflow(self, *args, **kwargs) -> None:
        if self.step == 5:
            with torch.no_grad():
                next(iter(self.model.parameters())).fill_(float("inf"))

    monkeypatch.setattr(Trainer, "log", overflow)
    monkeypatch.setattr(Trainer, "evaluate", overflow)
    with pytest.raises(FoveateError, match="weights are not finite numbers any more at step 5; nothing was saved"):
        train(settings)
    assert not list(Path(settings.out).glob("checkpoint-*"))


def test_a_full_disk_stops_the_run_with_the_last_checkpoint_whole(settings, undisturbed, monkeypatch) -> None:
    write = state.save_file

    def save_file(tensors, path, *args) -> None:
        if "checkpoint-10" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(tensors, path, *args)

    line = r"no space left for the checkpoint of step 10 .*checkpoint-5 is whole"
    with monkeypatch.context() as patch, pytest.raises(FoveateError, match=line):
        patch.setattr(state, "save_file", save_file)
        train(settings)
    assert_same_run(resume(settings.out), undisturbed)


def test_a_run_is_not_overwritten_unasked(settings) -> None:
    first = train(settings)
    before = (first.path / "model.safetensors").read_bytes()
    with pytest.raises(FoveateError, match="holds a run; go on with it by --resume, replace it by --overwrite"):
        train(settings)
    assert (first.path / "model.safetensors").read_bytes() == before
    again = train(replace(settings, seed=1), overwrite=True)
    assert (again.path / "model.safetensors").read_bytes() != before
    assert len(log(again.path)) == 9


def test_a_folder_of_other_things_is_left_alone(settings) -> None:
    Path(settings.out).mkdir()
    (Path(settings.out) / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(FoveateError, match=r"is not empty and holds no run \(thesis.tex\)"):
            train(settings, overwrite=overwrite)


def test_a_run_that_is_being_trained_is_refused(settings) -> None:
    def on_record(record) -> None:
        with pytest.raises(FoveateError, match="another process is training in"):
            resume(settings.out)

    assert train(settings, on_record=on_record).finished


def test_what_fails_before_it_begins_leaves_no_folder(settings, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FoveateError, match="--tensorboard needs one more package"):
        train(replace(settings, tensorboard=True))
    assert not Path(settings.out).exists()


def test_there_must_be_something_to_resume(tmp_path) -> None:
    with pytest.raises(FoveateError, match="there is no run to resume at"):
        resume(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_batch_beyond_memory_is_refused_before_it_is_tried(settings) -> None:
    with pytest.raises(
        FoveateError, match=r"a step would take about [\d,.]+ GiB .*choose a smaller --batch than 100000000"
    ):
        train(replace(settings, batch=10**8))


def test_matrices_decay_and_nothing_else_does(settings) -> None:
    result = train(replace(settings, walk="1@1 1@4 1@1", pooling="attention", expanding="attention"))
    with safe_open(result.path / "checkpoint-12" / "optimizer.safetensors", "pt") as file:
        decayed, others = json.loads(file.metadata()["json"])["param_groups"]
    names = list(weights(result.path))
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert decayed["betas"] == [0.9, 0.95]
    model, _ = load(result.path)
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    assert len(decayed["params"]) == len(linear) - 1  # the head is the embedding
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_the_manifest_tells_where_a_checkpoint_is_from(undisturbed) -> None:
    manifest = json.loads((undisturbed.path / "checkpoint-10" / "manifest.json").read_text())
    assert manifest["step"] == 10
    assert manifest["versions"]["torch"] == torch.__version__
    assert set(manifest["files"]) >= {"model.safetensors", "optimizer.safetensors", "tokenizer.json", SETTINGS_FILE}
