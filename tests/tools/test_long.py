"""Long runs: what they train, and on what they are scored, is what ``foveate train`` and ``foveate eval`` would."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TEXTS = ["It was a dark and stormy night; the rain fell in torrents. " * 40, "Überall ist Ruh, in allen Wipfeln. " * 50]
WALK = "1@1 1@4 1@1"


@pytest.fixture(scope="module")
def programs() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(EXPERIMENTS))
    import long
    import long_data
    import long_models

    yield {"long": long, "data": long_data, "models": long_models}
    sys.path.remove(str(EXPERIMENTS))


@pytest.fixture(scope="module")
def pack(programs, tmp_path_factory) -> Path:
    """A small pack: tokenizer, training tokens, two held-out documents."""
    from foveate.data.corpus import open_corpus
    from foveate.data.tokenizer import make_tokenizer

    folder = tmp_path_factory.mktemp("pack")
    tokenizer = make_tokenizer("bpe:300", lambda: TEXTS, progress=False)
    tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    corpus = open_corpus([str(folder / "texts.jsonl")], tokenizer, cache_dir=folder / "cache", progress=False)
    for name in ("train", "valid"):
        programs["data"].pack(corpus.tokens[:], folder / f"{name}.xz")
    return folder


def case(programs, **settings):
    train = {"data": "x", "hidden": 32, "heads": 2, "context": 32, "batch": 2, "lr": 0.01, "tokens": "512"}
    plan = {"train": {**train, "dtype": "fp32", **settings}, "groups": {"g": {}}, "models": {"m": {"walk": WALK}}}
    return programs["long"].Case(plan, "g", "m", 0, {})


def built(programs, pack, **settings):
    model = case(programs, **settings).build(pack)
    for parameter in model.parameters():  # so that what starts at zero takes part
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model


def test_packed_ids_come_back(programs, tmp_path) -> None:
    ids = np.random.default_rng(0).integers(0, 4096, 5_000).astype(np.uint16)
    programs["data"].pack(ids, tmp_path / "ids.xz")
    assert np.array_equal(programs["data"].unpack(tmp_path / "ids.xz"), ids)


def test_every_context_scores_the_same_bytes(programs, pack) -> None:
    short, long = (programs["data"].held_out(pack, context, 64) for context in (16, 64))
    assert short.text_bytes == long.text_bytes
    scored = [windows.targets[windows.targets >= 0] for windows in (short, long)]
    assert np.array_equal(*scored)
    from foveate.data.tokenizer import load_tokenizer

    texts = load_tokenizer(pack / "tokenizer").batch_decode(list(long.targets))
    assert all(whole.startswith(text) for whole, text in zip(TEXTS, texts, strict=True))
    assert long.text_bytes == sum(len(text.encode()) for text in texts)


def test_a_score_is_that_of_evaluate(programs, pack) -> None:
    from foveate.data.tokenizer import load_tokenizer
    from foveate.train.evaluate import evaluate

    windows = programs["data"].held_out(pack, 32, 64)
    model = built(programs, pack)
    tokenizer = load_tokenizer(pack / "tokenizer")
    found = programs["data"].score(model, windows, torch.device("cpu"), bf16=False)
    texts = tokenizer.batch_decode([np.concatenate(pair) for pair in windows.targets.reshape(-1, 2, 32)])
    expected = evaluate(model, tokenizer, texts, context=32, progress=False)
    assert programs["data"].bits_per_byte(found, windows) == pytest.approx(expected.bpb, rel=1e-5)


def test_training_is_that_of_the_command(programs, pack, tmp_path) -> None:
    from safetensors.torch import load_file

    from foveate.cli import main

    shape = ["--walk", WALK, "--hidden", "32", "--heads", "2", "--context", "32", "--batch", "2", "--lr", "0.01"]
    rest = ["--tokens", "512", "--dtype", "fp32", "--valid-fraction", "0", "--device", "cpu"]
    command = ["train", "--data", str(pack / "texts.jsonl"), "--tokenizer", str(pack / "tokenizer"), *shape, *rest]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    one = case(programs)
    tokens = programs["data"].unpack(pack / "train.xz")
    training = programs["long"].Training(one, one.build(pack), tokens, torch.device("cpu"))
    training.go_to(one.settings.steps)
    expected = load_file(tmp_path / "run" / "model.safetensors")
    for name, parameter in training.model.named_parameters():
        torch.testing.assert_close(parameter.data, expected[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("flag", ["qk_norm", "value_residual", "overlap", "expand_gate", "taps"])
def test_a_change_leaves_the_future_alone(programs, pack, flag) -> None:
    model = built(programs, pack, **{flag: 3 if flag == "taps" else True}).eval()
    ids = torch.randint(0, 256, (1, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(ids, use_cache=False).logits
        unchanged = built(programs, pack).eval()(ids, use_cache=False).logits
        assert not torch.allclose(before, unchanged)
        ids[0, 13] += 1
        after = model(ids, use_cache=False).logits
    assert torch.equal(before[:, :13], after[:, :13])
    assert not torch.equal(before[:, 13:], after[:, 13:])


def test_overlapping_units_of_their_own_members_alone_are_means(programs, pack) -> None:
    model, ids = case(programs).build(pack), torch.arange(24)[None]
    for parameter in model.model.decoder.steps[3].parameters():  # the expansion starts at zero
        torch.nn.init.normal_(parameter)
    expected = model(ids, use_cache=False).logits
    programs["models"].overlap_pools(model)
    pool = model.model.decoder.steps[1]
    pool.overlapping.place_bias.data[:4] = -100
    torch.testing.assert_close(model(ids, use_cache=False).logits, expected, rtol=1e-4, atol=1e-5)
    pool.overlapping.place_bias.data[:4] = 0
    assert not torch.allclose(model(ids, use_cache=False).logits, expected, rtol=1e-2)


def test_muon_steps_by_a_nearly_orthogonal_matrix_for_each_part(programs) -> None:
    name = "layers.0.qkv_proj.weight"
    weight = torch.nn.Parameter(torch.zeros(96, 32))
    weight.grad = torch.randn(96, 32, generator=torch.Generator().manual_seed(0)) * 7
    programs["models"].Muon({name: weight}, torch.tensor(0.5), decay=0.1).step()
    for part in weight.data.view(3, 32, 32):
        singular = torch.linalg.svdvals(part) / (0.5 * 0.2 * 32**0.5)
        assert 0.3 < singular.min() < singular.max() < 1.3
        assert part.flatten() @ weight.grad.view(3, 32, 32).flatten()[: 32 * 32] != 0
    assert (weight.data * weight.grad).sum() < 0


def test_the_best_rate_of_a_sweep_is_by_model(programs, tmp_path) -> None:
    found = [("plain@0.1", 0.1, 2.0), ("plain@0.2", 0.2, 1.5), ("deep@0.1", 0.1, 1.0), ("deep@0.2", 0.2, 3.0)]
    lines = [json.dumps({"model": model, "lr": lr, "bpb": bpb}) for model, lr, bpb in found]
    (tmp_path / "results.jsonl").write_text("\n".join(lines))
    assert programs["long"].best_rates(tmp_path) == {"plain": 0.2, "deep": 0.1}


def test_a_plan_is_trained_scored_and_gathered(programs, pack, tmp_path) -> None:
    long = programs["long"]
    (tmp_path / "cases").mkdir()
    one = case(programs, save=True)
    long.train(one, pack, long.training_tokens(pack), tmp_path, torch.device("cpu"), float("inf"))
    (record,) = long.gather(tmp_path)
    assert record["finished"]
    assert record["tokens"] == 512
    nll = np.load(tmp_path / "cases" / "g-m-0.npy")
    windows = programs["data"].held_out(pack, 32, long.SCORED_EACH)
    assert programs["data"].bits_per_byte(nll, windows) == pytest.approx(record["bpb"], rel=1e-3)
    from foveate import load

    model, _ = load(tmp_path / "models" / "g-m-0")
    again = programs["data"].score(model.float(), windows, torch.device("cpu"), bf16=False)
    assert programs["data"].bits_per_byte(again, windows) == pytest.approx(record["bpb"], rel=1e-2)
