"""Training with the usual tools: Trainer, checkpointing, compiling, half precision, adapters, other vocabularies."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from foveate import FoveateForCausalLM
from foveate.errors import FoveateError
from foveate.hf.private import checkpointing_argument
from hf.models import FAMILIES, greedy, make_ids, make_model, pad_left


def checkpoint(model: Any, how: dict[str, Any] | None = None, *, on: bool = True) -> None:
    """Switch activation checkpointing, under the name that this release of transformers has for it."""
    name = checkpointing_argument()
    getattr(model, f"{name}_enable")(how) if on else getattr(model, f"{name}_disable")()


def loss_and_gradients(model: Any, ids: Tensor, **inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids, **inputs).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_changes_nothing(family: str, use_reentrant: bool) -> None:
    model = make_model(family).train()
    padded, mask = pad_left([make_ids(n, seed=n) for n in (23, 9)])
    for ids, inputs in ((make_ids(2, 37), {}), (padded, {"attention_mask": mask})):
        loss, gradients = loss_and_gradients(model, ids, **inputs)
        checkpoint(model, {"use_reentrant": use_reentrant})
        calls: list[int] = []
        layer = next(step.layers[0] for step in model.model.decoder.steps if len(getattr(step, "layers", ())))
        hook = layer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        again, checkpointed = loss_and_gradients(model, ids, **inputs)
        hook.remove()
        checkpoint(model, on=False)
        assert len(calls) == 2, "a layer was not computed again"
        assert gradients.keys() == checkpointed.keys()
        torch.testing.assert_close(again, loss, atol=1e-12, rtol=0)
        for name, gradient in gradients.items():
            torch.testing.assert_close(checkpointed[name], gradient, atol=1e-10, rtol=0)


def test_checkpointing_keeps_no_cache() -> None:
    model = make_model("window").train()
    checkpoint(model)
    assert model(make_ids(1, 9), use_cache=True).past_key_values is None
    with pytest.raises(FoveateError, match="past_key_values"):
        model(make_ids(1, 9), past_key_values=model.make_cache(), use_cache=True)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_trainer(tmp_path: Path, checkpointing: bool) -> None:
    model = FoveateForCausalLM(make_model("hourglass").config)
    rows = [{"input_ids": row, "labels": row} for row in make_ids(4, 24).repeat(8, 1)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=30, per_device_train_batch_size=4, learning_rate=1e-2, report_to=[],
        save_strategy="no", disable_tqdm=True, logging_steps=10, use_cpu=True, seed=0,
        **{checkpointing_argument(): checkpointing},
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)  # type: ignore[arg-type]
    trainer.train()
    losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
    assert losses[-1] < 0.8 * losses[0]
    assert trainer.evaluate(rows)["eval_loss"] < losses[0]  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "backend"),
    [("plain", "aot_eager"), ("hourglass", "inductor"), ("window", "aot_eager"), ("retina", "aot_eager")],
)
def test_a_compiled_training_step_is_the_plain_one(family: str, backend: str) -> None:
    torch.compiler.reset()
    model = make_model(family, dtype=torch.float32).train()
    ids = make_ids(2, 48)
    loss, gradients = loss_and_gradients(model, ids)
    again, compiled = loss_and_gradients(torch.compile(model, backend=backend, fullgraph=True), ids)
    torch.testing.assert_close(again, loss, atol=1e-5, rtol=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in compiled.items():
        error = (gradient - gradients[name.removeprefix("_orig_mod.")]).abs().max()
        assert error <= 1e-4 * max(1.0, largest)


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_logits_do_not_depend_on_gradients_or_a_cache(family: str) -> None:
    ids = make_ids(2, 150)
    for dtype in (torch.bfloat16, torch.float32):
        model = make_model(family, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
            found = [model(ids, use_cache=False).logits]
            with torch.no_grad():
                found += [model(ids, use_cache=use_cache).logits for use_cache in (False, True)]
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["plain", "hourglass", "retina"])
def test_a_compiled_forward_generates_the_same(family: str) -> None:
    torch.compiler.reset()
    model, ids = make_model(family), make_ids(2, 9)
    expected = greedy(model, ids, 12)
    model.forward = torch.compile(model.forward, backend="eager")  # type: ignore[method-assign]
    assert torch.equal(model.generate(ids, max_new_tokens=12, do_sample=False), expected)


@pytest.mark.parametrize("tied", [True, False])
def test_tying_and_resizing(tied: bool, tmp_path: Path) -> None:
    model = make_model("hourglass", tie_word_embeddings=tied)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) is tied
    ids = make_ids(2, 9)
    with torch.no_grad():
        before = model(ids).logits
        model.resize_token_embeddings(41, mean_resizing=False)
        assert model.config.vocab_size == 41
        assert (model.lm_head.weight is model.get_input_embeddings().weight) is tied
        torch.testing.assert_close(model(ids).logits[..., :37], before, atol=1e-12, rtol=0)
        assert model(torch.full((1, 3), 40)).logits.shape == (1, 3, 41)
        model.save_pretrained(tmp_path)
        again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
        assert (again.lm_head.weight is again.get_input_embeddings().weight) is tied
        torch.testing.assert_close(again(ids).logits, model(ids).logits, atol=1e-12, rtol=0)
        again.resize_token_embeddings(30)
        assert again(torch.full((1, 3), 29)).logits.shape == (1, 3, 30)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_weights(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = make_model(family, dtype=torch.float32)
    ids = make_ids(2, 33)
    with torch.no_grad():
        expected = model(ids).logits
        model.to(dtype).save_pretrained(tmp_path)
        half = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
        assert half.dtype == dtype
        logits = half(ids).logits
        assert logits.dtype == dtype
        assert (logits.float() - expected).square().mean().sqrt() < 0.1 * expected.std()
        cache = half.make_cache(2)
        parts = [half(part, past_key_values=cache).logits for part in ids.split([20, 1, 1, 11], 1)]
        error = (torch.cat(parts, 1).float() - logits.float()).square().mean().sqrt()
        assert error < 0.1 * expected.std()
    loss, gradients = loss_and_gradients(half.train(), ids)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("where", ["cpu", "auto", {"": "cpu"}])
def test_device_maps(where: Any, tmp_path: Path) -> None:
    model = make_model("hourglass", dtype=torch.float32)
    model.save_pretrained(tmp_path)
    placed = AutoModelForCausalLM.from_pretrained(tmp_path, device_map=where)
    ids = make_ids(1, 9)
    assert torch.equal(placed.generate(ids, max_new_tokens=5), model.generate(ids, max_new_tokens=5))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks for what transformers is about to rename
@pytest.mark.filterwarnings("ignore:Could not find a config file")  # peft before 0.19, of a model without a folder
def test_low_rank_adapters(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = pytest.importorskip("peft")
    model = make_model("hourglass", dtype=torch.float32)
    ids = make_ids(2, 20)
    with torch.no_grad():
        before = model(ids).logits
    settings = peft.LoraConfig(r=2, target_modules=["qkv_proj", "o_proj", "gate_up_proj", "down_proj"])
    adapted = peft.get_peft_model(model, settings)
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 4 * 4  # two matrices for each of four in each of four layers
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(20):
        loss = adapted(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.2
    adapted.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        after = adapted(ids).logits
        again = peft.PeftModel.from_pretrained(make_model("hourglass", dtype=torch.float32), tmp_path)
        torch.testing.assert_close(again(ids).logits, after)
        assert not torch.allclose(after, before)
        merged = again.merge_and_unload()
        torch.testing.assert_close(merged(ids).logits, after, atol=1e-4, rtol=1e-4)
        out = adapted.generate(input_ids=ids, max_new_tokens=6, do_sample=False)
        assert torch.equal(out, merged.generate(ids, max_new_tokens=6, do_sample=False))


def test_a_model_says_what_it_is_when_pushed() -> None:
    assert "foveate" in FoveateForCausalLM.model_tags
