"""Starting from weights that are there: whole, in part, in stages, or with adapters beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from foveate.cli import main
from foveate.errors import FoveateError
from foveate.loading import load
from foveate.train.run import resume, train
from foveate.train.settings import TrainSettings
from foveate.train.trainer import Trainer
from train.comparing import Killed, assert_same_run, elsewhere, kill_at, weights


@pytest.fixture
def tuned(settings, undisturbed) -> TrainSettings:
    """The twelve steps once more, from where the undisturbed run has ended, on longer sequences."""
    plain = TrainSettings()
    shape = {name: getattr(plain, name) for name in ("walk", "hidden", "heads")}
    return replace(
        settings, **shape, from_=str(undisturbed.path), tokenizer=None, context=48, tokens=12 * 4 * 48, log_every=1,
        out=f"{settings.out}-tuned",
    )  # fmt: skip


def needs_peft(changes) -> None:
    if changes.get("lora"):
        pytest.importorskip("peft")


def changed(run: Path, start: Path) -> set[str]:
    mine, before = weights(run), weights(start)
    assert mine.keys() == before.keys()
    return {name for name in mine if not torch.equal(mine[name], before[name])}


def test_goes_on_from_the_weights_with_their_shape_and_tokenizer(tuned, undisturbed) -> None:
    result = train(replace(tuned, lr=0.0))
    assert changed(result.path, undisturbed.path) == set()
    model, tokenizer = load(result.path, device="cpu")
    assert (model.config.walk, model.config.max_position_embeddings) == ("1@1 1@4 1@1", 48)
    assert tokenizer.get_vocab() == load(undisturbed.path)[1].get_vocab()
    scratch = train(replace(elsewhere(tuned, "scratch"), from_=None, tokenizer="bytes", walk="1@1", lr=0.0))
    assert result.valid["bpb"] < scratch.valid["bpb"] - 1


def test_its_rate_is_a_tenth(tuned, settings) -> None:
    new, old = (TrainSettings(from_=start).resolve(parameters=10**6).lr for start in ("x", None))
    assert new == pytest.approx(old / 10)
    assert TrainSettings(from_="x", lora=2).resolve(parameters=10**6).lr == old


def test_a_run_that_has_not_ended_gives_its_newest_checkpoint(settings, tuned) -> None:
    unfinished = elsewhere(settings, "unfinished")
    with pytest.raises(Killed):
        train(unfinished, on_record=kill_at(8, "train"))
    newest = Path(unfinished.out) / "checkpoint-5"
    assert newest.exists()
    assert not (Path(unfinished.out) / "model.safetensors").exists()
    assert changed(train(replace(tuned, from_=unfinished.out, tokenizer=None, lr=0.0)).path, newest) == set()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"freeze": ("embedding", "*norm.weight")},
        {"stages": ("500:moves", "700:*.4.*")},
        {"lora": 2},
        {"lora": 2, "lora_merge": False},
        {"optimizer": "muon"},
    ],
    ids=["whole", "freeze", "stages", "lora", "adapters", "muon"],
)
def test_killed_it_resumes_to_the_bit(tuned, changes) -> None:
    needs_peft(changes)
    tuned = replace(tuned, **changes, dtype="bf16", accumulate=2)
    with pytest.raises(Killed):
        train(tuned, on_record=kill_at(4, "train"))
    for step in (8, 12):
        with pytest.raises(Killed):
            resume(tuned.out, on_record=kill_at(step, "train"))
    mine, undisturbed = resume(tuned.out), train(elsewhere(tuned))
    if changes.get("lora_merge", True):
        assert_same_run(mine, undisturbed)
    else:
        one, other = (load_file(run.path / "adapter_model.safetensors") for run in (mine, undisturbed))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_frozen_stays_and_all_else_learns(tuned, undisturbed) -> None:
    result = train(replace(tuned, freeze=("embedding", "*norm.weight"), weight_decay=0.5))
    names = set(weights(result.path))
    assert changed(result.path, undisturbed.path) == {
        name for name in names if "embed" not in name and not name.endswith("norm.weight")
    }


def test_stages_train_what_they_name_until_their_end(tuned, undisturbed, monkeypatch) -> None:
    learned: dict[int, set[str]] = {}
    take_step = Trainer._take_step

    def watched(self, parts) -> None:
        before = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        take_step(self, parts)
        learned[self.step] = {n for n, p in self.model.named_parameters() if not torch.equal(p, before[n])}

    monkeypatch.setattr(Trainer, "_take_step", watched)
    train(replace(tuned, stages=("576:moves", "384:*.embed_tokens.*"), freeze=("*.3.norm.weight",)))  # 3 steps, 2, 7
    moves = {"model.decoder.steps.1.norm.weight", "model.decoder.steps.3.start", "model.decoder.steps.3.proj.weight"}
    assert [learned[step] == moves for step in range(1, 7)] == [True, True, True, False, False, False]
    assert learned[4] == learned[5] == {"model.embed_tokens.weight"}
    assert learned[6] == learned[12] == set(weights(undisturbed.path)) - {"model.decoder.steps.3.norm.weight"}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks transformers by a name of before
def test_adapters_are_merged_into_a_model_that_transformers_loads(tuned, undisturbed) -> None:
    peft = pytest.importorskip("peft")
    result = train(replace(tuned, lora=2, lr=3e-2))
    assert not list(result.path.glob("*lora*"))
    merged = AutoModelForCausalLM.from_pretrained(result.path)
    ids = torch.tensor([list(b"the cat sat")])
    apart = train(replace(elsewhere(tuned), lora=2, lr=3e-2, lora_merge=False))
    base = AutoModelForCausalLM.from_pretrained(undisturbed.path)
    before = base(ids).logits.detach()
    adapted = peft.PeftModel.from_pretrained(base, apart.path)
    torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, atol=1e-5, rtol=1e-5)
    assert (merged(ids).logits - before).abs().max() > 1e-2
    assert result.valid["bpb"] == apart.valid["bpb"]


def test_another_base_under_adapters_is_refused(tuned, settings) -> None:
    pytest.importorskip("peft")
    base = elsewhere(settings, "base")
    tuned = replace(tuned, from_=str(train(base).path), tokenizer=None, lora=2)
    with pytest.raises(Killed):
        train(tuned, on_record=kill_at(8, "train"))
    train(replace(base, seed=5), overwrite=True)
    with pytest.raises(FoveateError, match=r"the start of .* is not what it was when the run began"):
        resume(tuned.out)


def test_a_llama_goes_on_too(settings, undisturbed) -> None:
    plain = train(replace(settings, model="llama", walk="1@1"))
    again = {"from_": str(plain.path), "tokenizer": None, "walk": TrainSettings.walk, "model": "foveate"}
    result = train(replace(elsewhere(settings), **again, hidden=256, heads=None, lr=0.0))
    assert changed(result.path, plain.path) == set()


def test_a_llama_has_nothing_to_pool(settings, undisturbed) -> None:
    plain = train(replace(settings, model="llama", walk="1@1", tokens=128))
    again = {"from_": str(plain.path), "tokenizer": None, "walk": TrainSettings.walk, "model": "foveate"}
    for asked in ({"pooling": "linear"}, {"expanding": "linear"}):
        with pytest.raises(FoveateError, match=r"--(pool|expand)ing: the model of --from .* has no levels to move"):
            train(replace(elsewhere(settings), **again, **asked, hidden=256, heads=None))


def test_muon_steps_matrices_and_a_bad_step_leaves_no_trace(settings, monkeypatch) -> None:
    settings = replace(settings, optimizer="muon", on_nan="skip", schedule="constant", warmup=0.0, tokens=6 * 128)
    compute_loss = Trainer.compute_loss
    bad: set[int] = set()

    def spoiled(self, *args):
        loss = compute_loss(self, *args)
        return loss * float("nan") if self.step in bad else loss

    seen: dict[int, list[torch.Tensor]] = {}
    end_step = Trainer._end_step

    def watched(self) -> bool:
        tensors = [
            *self.model.parameters(),
            *(self.optimizer.muon.state[p]["momentum_buffer"] for p in self.optimizer.muon.param_groups[0]["params"]),
        ]
        seen[self.step] = [value.detach().clone() for value in tensors]
        return end_step(self)

    monkeypatch.setattr(Trainer, "compute_loss", spoiled)
    monkeypatch.setattr(Trainer, "_end_step", watched)
    bad |= {1, 4}
    train(settings)
    assert all(torch.equal(a, b) for a, b in zip(seen[3], seen[4], strict=True))
    assert not any(value.any() for value in seen[1][-9:]), "the first step was bad: no momentum yet"
    assert all(torch.isfinite(value).all() for value in seen[6])
    assert not any(torch.equal(a, b) for a, b in zip(seen[4], seen[5], strict=True))


def test_muons_step_is_that_of_torch(settings) -> None:
    """One step on a matrix and a vector against the two optimizers of torch, each by itself."""
    from foveate.train.optimizer import make_optimizer, set_rate

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Embedding(3, 4))
    other = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Embedding(3, 4))
    other.load_state_dict(model.state_dict())
    mine = make_optimizer(model, replace(settings, optimizer="muon", lr=0.5), {n for n, _ in model.named_parameters()})
    set_rate(mine, 0.02)
    muon = torch.optim.Muon([other[0].weight], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([other[0].bias, other[1].weight], lr=0.02, betas=(0.9, 0.95), weight_decay=0.0)
    mine.found_inf = torch.zeros(())
    for _ in range(3):
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            two.grad = one.grad.clone()
        for optimizer in (mine, muon, adamw):
            optimizer.step()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--lora 4", "--lora adapts a model that is there; name it with --from DIR"),
        ("--no-lora-merge", "--no-lora-merge is about adapters"),
        ("--from {run} --lora 4 --freeze moves", "--lora trains its adapters alone"),
        ("--from {run} --lora 4 --parallel fsdp", "--lora: adapters are too small"),
        ("--from {run} --tokenizer bytes", "--tokenizer: the model of --from {run} has its own"),
        ("--from {run} --walk 3@1", "--walk: the model of --from {run} has 1@1 1@4 1@1, not 3@1; leave it out"),
        ("--from {run} --hidden 64", "--hidden: the model of --from {run} has 32, not 64"),
        ("--from {run}/nowhere", "there is no model at {run}/nowhere"),
        ("--from {run} --freeze nothing", "--freeze: no parameter matches 'nothing'; there are model.embed_tokens"),
        ("--from {run} --freeze *", "--freeze: * leaves nothing to train"),
        ("--from {run} --freeze moves --stages 1M:moves", "--stages: all that one of them is to train is frozen"),
        ("--stages moves", "--stages: cannot read 'moves'; write TOKENS:PATTERN"),
        ("--stages 2G:moves", "--stages: together they take 2,000,000,000 tokens, the run has 10,000,000"),
        ("--optimizer muon --parallel fsdp", "--optimizer muon works on whole matrices"),
        ("--optimizer sgd", "--optimizer: 'sgd' is unknown"),
    ],
)
def test_a_mistake_is_one_line(words, line, undisturbed, text_file, tmp_path, capsys) -> None:
    given = words.format(run=undisturbed.path).split()
    assert main(["train", "--data", str(text_file), "--context", "32", "--out", str(tmp_path / "new"), *given]) == 2
    assert line.format(run=undisturbed.path) in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "new").exists()
