"""Learning from a teacher: its loss against the definition, its answers on the disk, and runs that are killed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from foveate.cli import main
from foveate.errors import FoveateError
from foveate.loading import load
from foveate.train.distill import Answers, Teacher, divergence, top_divergence
from foveate.train.metrics import read_metrics
from foveate.train.run import resume, train
from foveate.train.settings import TrainSettings
from foveate.train.trainer import Trainer
from train.comparing import Killed, assert_same_run, elsewhere, kill_at


@pytest.fixture
def taught(settings, undisturbed) -> TrainSettings:
    """The twelve steps of another student, which the undisturbed run teaches."""
    return replace(
        settings, walk="1@1", teacher=str(undisturbed.path), tokenizer=None, seed=1, log_every=1,
        out=f"{settings.out}-taught",
    )  # fmt: skip


def logs(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(3 * torch.randn(*shape, generator=generator, dtype=torch.float64), -1)


def test_the_divergence_is_that_of_torch() -> None:
    theirs, mine = logs(2, 5, 11, seed=0), logs(2, 5, 11, seed=1)
    expected = kl_div(mine, theirs, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(divergence(theirs, mine), expected)


def test_of_the_likeliest_tokens_it_is_that_of_a_vocabulary_with_one_token_for_all_others() -> None:
    theirs, mine = logs(2, 5, 11, seed=0), logs(2, 5, 11, seed=1)
    for top in (1, 4, 10):
        best = theirs.topk(top, -1)
        folded = []
        for of in (theirs, mine):
            known = of.gather(-1, best.indices)
            folded.append(torch.cat([known, (1 - known.exp().sum(-1, keepdim=True)).log()], -1))
        expected = kl_div(folded[1], folded[0], reduction="none", log_target=True).sum(-1)
        found = top_divergence(best.indices, best.values, mine)
        torch.testing.assert_close(found, expected)
        assert (found <= divergence(theirs, mine) + 1e-12).all()
    everything = theirs.topk(11, -1)
    torch.testing.assert_close(
        top_divergence(everything.indices, everything.values, mine), divergence(theirs, mine), atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize("top", [None, 258])
def test_the_loss_is_nll_and_divergence_by_their_weights(taught, undisturbed, top, monkeypatch) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    compute_loss = Trainer.compute_loss

    def watched(self, inputs_BT, targets):
        with torch.no_grad():
            seen.append((inputs_BT["input_ids"], self.model(input_ids=inputs_BT["input_ids"]).logits))
        return compute_loss(self, inputs_BT, targets)

    monkeypatch.setattr(Trainer, "compute_loss", watched)
    run = train(replace(taught, distill=0.3, temperature=2.0, teacher_top=top, tokens=128, accumulate=2)).path
    ids_BT, mine_BTV = (torch.cat(parts) for parts in zip(*seen, strict=True))
    theirs_BTV = load(undisturbed.path, device="cpu")[0](input_ids=ids_BT).logits.detach()[:, :-1]
    mine_BTV, next_BT = mine_BTV[:, :-1], ids_BT[:, 1:]
    nll = cross_entropy(mine_BTV.flatten(0, 1), next_BT.flatten())
    target = torch.softmax(theirs_BTV / 2, -1)
    apart = (target * (target.log() - torch.log_softmax(mine_BTV / 2, -1))).sum(-1).mean()
    assert apart > 0.1
    [record] = [record for record in read_metrics(run) if record["kind"] == "train"]
    assert record["loss"] == pytest.approx((0.7 * nll + 0.3 * 4 * apart).item(), rel=1e-5 if top is None else 1e-3)


def test_a_student_that_is_its_teacher_has_nothing_to_learn(taught, undisturbed) -> None:
    itself = {"walk": TrainSettings.walk, "hidden": 256, "heads": None, "from_": str(undisturbed.path)}
    run = train(replace(taught, **itself, tokenizer=None, distill=1.0, lr=0.0)).path
    assert all(abs(record["loss"]) < 1e-6 for record in read_metrics(run) if record["kind"] == "train")


@pytest.mark.parametrize("top", [None, 8])
def test_killed_it_resumes_to_the_bit(taught, undisturbed, top, monkeypatch, tmp_path) -> None:
    shape = {"walk": TrainSettings.walk, "hidden": 256, "heads": None}
    taught = replace(
        taught, **shape, from_=str(undisturbed.path), tokenizer=None, teacher_top=top, dtype="bf16", accumulate=2
    )
    with pytest.raises(Killed):
        train(taught, on_record=kill_at(8, "train"))
    with pytest.raises(Killed):
        resume(taught.out, on_record=kill_at(12, "train"))
    mine = resume(taught.out)
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    assert_same_run(mine, train(elsewhere(taught)))


def test_the_teacher_reads_each_sequence_once(taught, tmp_path, monkeypatch) -> None:
    text = tmp_path / "short.txt"
    text.write_text("the cat sat on a mat " * 36)  # 756 tokens: 25 sequences
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    read: list[int] = []
    predict = Teacher._predict
    monkeypatch.setattr(Teacher, "_predict", lambda self, ids, v: read.append(len(ids)) or predict(self, ids, v))
    taught = replace(taught, data=(str(text),), valid_fraction=0.0, teacher_top=4, batch=5, tokens=15 * 5 * 32)
    first = train(taught)
    assert sum(read) == 25, "fifteen steps are three passes"
    assert train(elsewhere(taught)).train["loss"] == first.train["loss"]
    assert sum(read) == 25


def test_an_answer_is_whole_or_none(tmp_path) -> None:
    path = tmp_path / "answers"
    answers = Answers(path, length=4, top=2, vocabulary=300)
    ids, log = np.array([[299, 1], [2, 3], [4, 5]]), np.log(np.array([[0.5, 0.25]] * 3))
    answers.write(3, ids, log)
    assert answers.read(0) is answers.read(2) is answers.read(4) is None
    read = answers.read(3)
    assert read is not None
    assert (read[0] == ids).all()
    assert np.abs(read[1] - log).max() < 1e-3
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert Answers(path, length=4, top=2, vocabulary=300).read(3) is None


def test_another_teacher_is_refused_on_resuming(taught, settings, undisturbed, tmp_path) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(undisturbed.path, teacher)
    with pytest.raises(Killed):
        train(replace(taught, teacher=str(teacher), tokenizer="bytes"), on_record=kill_at(8, "train"))
    train(replace(settings, out=str(teacher), seed=9), overwrite=True)
    with pytest.raises(FoveateError, match=r"the teacher of .* is not what it was when the run began"):
        resume(taught.out)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--distill 0.5", "--distill is about a teacher; name one with --teacher DIR"),
        ("--teacher-top 4", "--teacher-top is about a teacher"),
        ("--teacher {run} --teacher-top 4 --stream", "--teacher-top keeps what was said of each sequence"),
        ("--teacher {run} --teacher-top 999", "--teacher-top: 999 are more than the 258 tokens there are"),
        ("--teacher {run} --tokenizer bpe:300", "--teacher: {run} reads other tokens than the model"),
        ("--teacher {run}/nowhere", "there is no model at {run}/nowhere"),
        ("--teacher {run}/foveate.yaml", "there is no model at {run}/foveate.yaml: it is a file"),
        ("--teacher {run} --distill 2", "--distill: '2' is not a number from 0 to 1"),
        ("--teacher {run} --temperature 0", "--temperature: '0' is not a number from 0.01 to 100"),
    ],
)
def test_a_mistake_is_one_line(words, line, undisturbed, text_file, tmp_path, capsys) -> None:
    given = words.format(run=undisturbed.path).split()
    new = tmp_path / "new"
    assert main(["train", "--data", str(text_file), "--context", "32", "--walk", "1@1", "--out", str(new), *given]) == 2
    assert line.format(run=Path(undisturbed.path)) in capsys.readouterr().err.strip().splitlines()[-1]
    assert not new.exists()
