"""The model as others call it: a backbone, heads on it, and its name in every table that goes by names."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    Trainer,
    TrainingArguments,
)

from foveate import FoveateForCausalLM
from foveate.converting import from_llama
from foveate.errors import FoveateError
from foveate.hf.modeling_foveate import FoveateModel
from foveate.hf.private import CACHE
from hf.models import make_ids, make_model, pad_left

# of the first checkpoints there were: a folder with these still loads
NAMES = {
    "model.embed_tokens.weight",
    "model.decoder.norm.weight",
    "model.decoder.steps.1.norm.weight",
    *(f"model.decoder.steps.3.{name}" for name in ("norm.weight", "proj.weight", "start")),
    *(
        f"model.decoder.steps.{step}.layers.{layer}.{name}.weight"
        for step, layers in ((0, 1), (2, 2), (4, 1))
        for layer in range(layers)
        for name in ("attention_norm", "qkv_proj", "o_proj", "mlp_norm", "gate_up_proj", "down_proj")
    ),
    "lm_head.weight",
}


def test_the_names_of_weights_are_those_of_old_checkpoints() -> None:
    assert set(make_model("hourglass").state_dict()) == NAMES


def test_the_backbone_is_what_the_causal_model_predicts_from(model: FoveateForCausalLM, tmp_path: Path) -> None:
    ids, mask = pad_left([make_ids(n, seed=n) for n in (23, 9)])
    model.save_pretrained(tmp_path)
    alone = AutoModel.from_pretrained(tmp_path, dtype=torch.float64)
    assert type(alone) is type(model.base_model) is FoveateModel
    with torch.no_grad():
        expected = model(ids, attention_mask=mask)
        for backbone in (alone, model.base_model, model.get_decoder(), model.model):
            out = backbone(input_ids=ids, attention_mask=mask, use_cache=False)
            assert set(out.keys()) == {"last_hidden_state"}
            real = mask[..., None].bool()
            logits = model.lm_head(out.last_hidden_state)
            torch.testing.assert_close(logits * real, expected.logits * real, atol=1e-10, rtol=0)
        embeds = model.get_input_embeddings()(ids)
        by_embeds = alone(inputs_embeds=embeds, attention_mask=mask, return_dict=False)
    torch.testing.assert_close(by_embeds[0], out.last_hidden_state, atol=1e-10, rtol=0)
    assert by_embeds[1].seen == 23
    assert alone.get_input_embeddings() is alone.embed_tokens
    assert alone.get_decoder() is alone


def test_the_backbone_reads_on_with_a_cache(model: FoveateForCausalLM) -> None:
    backbone, ids = model.model, make_ids(2, 21)
    with torch.no_grad():
        whole = backbone(ids, output_hidden_states=True)
        first = backbone(ids[:, :13])
        rest = backbone(ids[:, 13:], **{CACHE: first.cache})
    torch.testing.assert_close(rest.last_hidden_state, whole.last_hidden_state[:, 13:], atol=1e-10, rtol=0)
    assert torch.equal(whole.hidden_states[-1], whole.last_hidden_state)
    assert len(whole.hidden_states) == len(model.config.hidden_state_strides)


def test_other_embeddings_and_other_heads_take_their_place() -> None:
    model = make_model("hourglass")
    new = torch.nn.Embedding(37, 16, dtype=torch.float64)
    model.set_input_embeddings(new)
    assert model.model.embed_tokens is model.get_input_embeddings() is new


# heads, against Llama's with the same weights


NEAR = 1e-5  # Llama turns positions in fp32, whatever its weights


def small_llama(kind: Any, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=37, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        initializer_range=0.3, pad_token_id=0, eos_token_id=None, bos_token_id=1, **changes,
    )  # fmt: skip
    return kind(config).double().eval()


def as_llama(llama: Any, auto: Any) -> Any:
    """Ours with the weights of a Llama that classifies."""
    causal = LlamaForCausalLM(llama.config).double()
    causal.model.load_state_dict(llama.model.state_dict())
    plain = from_llama(causal)
    plain.config.num_labels, plain.config.problem_type = llama.config.num_labels, llama.config.problem_type
    ours = auto.from_config(plain.config).double().eval()
    ours.model.load_state_dict(plain.model.state_dict())
    ours.score.weight.data.copy_(llama.score.weight)
    if getattr(llama.score, "bias", None) is not None:
        llama.score.bias.data.zero_()
    return ours


CLASSES: list[tuple[int, str | None, Any]] = [
    (3, None, torch.tensor([2, 0, 1])),
    (1, "regression", torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)),
    (4, "multi_label_classification", torch.eye(4, dtype=torch.float64)[:3]),
]


@pytest.mark.parametrize(("labels", "problem", "wanted"), CLASSES)
def test_texts_are_classified_as_by_a_llama(labels: int, problem: str | None, wanted: Tensor) -> None:
    llama = small_llama(LlamaForSequenceClassification, num_labels=labels, problem_type=problem)
    ours = as_llama(llama, AutoModelForSequenceClassification)
    rows = [make_ids(n, seed=n) for n in (9, 4, 7)]
    left, mask = pad_left(rows)
    right, right_mask = left.clone(), mask.flip(1)
    for at, row in enumerate(rows):
        right[at] = torch.cat((row, row.new_zeros(9 - len(row))))
    for ids, real in ((left, mask), (right, right_mask)):
        expected = llama(ids, attention_mask=real, labels=wanted)
        for inputs in ({"attention_mask": real}, {"attention_mask": real.bool()}):
            out = ours(ids, labels=wanted, **inputs)
            torch.testing.assert_close(out.logits, expected.logits, atol=NEAR, rtol=0)
            torch.testing.assert_close(out.loss, expected.loss, atol=NEAR, rtol=0)
    # without a mask, ours and Llama both take what is not the padding's id for the text's end
    torch.testing.assert_close(ours(right).logits, llama(right).logits, atol=NEAR, rtol=0)


def test_the_mask_and_not_the_paddings_id_says_where_a_text_ends() -> None:
    ours = as_llama(small_llama(LlamaForSequenceClassification, num_labels=3), AutoModelForSequenceClassification)
    row = make_ids(1, 6)
    row[:, -1] = 0  # a real token that happens to be the padding's
    with torch.no_grad():
        kept = ours(row, attention_mask=torch.ones_like(row)).logits
        h = ours.model(row).last_hidden_state[:, -1]
        torch.testing.assert_close(kept, ours.score(h), atol=1e-12, rtol=0)
        ours.config.pad_token_id = None
        torch.testing.assert_close(ours(row).logits, kept, atol=1e-12, rtol=0)
        with pytest.raises(FoveateError, match="nothing says where each ends"):
            ours(row.repeat(2, 1))


def test_tokens_are_classified_as_by_a_llama() -> None:
    llama = small_llama(LlamaForTokenClassification, num_labels=3)
    ours = as_llama(llama, AutoModelForTokenClassification)
    ids, mask = pad_left([make_ids(n, seed=n) for n in (9, 4)])
    labels = (ids % 3).masked_fill(mask == 0, -100)
    expected, out = (model(ids, attention_mask=mask, labels=labels) for model in (llama, ours))
    torch.testing.assert_close(out.logits * mask[..., None], expected.logits * mask[..., None], atol=NEAR, rtol=0)
    torch.testing.assert_close(out.loss, expected.loss, atol=NEAR, rtol=0)


def test_a_causal_checkpoint_gets_a_new_head(tmp_path: Path) -> None:
    model = make_model("hourglass")
    model.save_pretrained(tmp_path)
    scored = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1, dtype=torch.float64)
    for name, value in model.model.state_dict().items():
        assert torch.equal(scored.model.state_dict()[name], value)
    assert scored.score.weight.shape == (1, 16)
    assert scored.score.weight.isfinite().all()
    scored.save_pretrained(tmp_path / "scored")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "scored", dtype=torch.float64)
    assert torch.equal(again(make_ids(1, 9)).logits, scored(make_ids(1, 9)).logits)


# tables that go by names


def trainer(model: Any, folder: Path, **arguments: Any) -> Trainer:
    return Trainer(
        model=model,
        args=TrainingArguments(str(folder), report_to=[], use_cpu=True, disable_tqdm=True, **arguments),
    )


def test_smoothed_labels_are_those_of_the_next_token(tmp_path: Path) -> None:
    model = make_model("hourglass", dtype=torch.float32).train()
    ids, mask = pad_left([make_ids(n, seed=n) for n in (23, 9)])
    labels = ids.masked_fill(mask == 0, -100)
    smoothed = trainer(model, tmp_path, label_smoothing_factor=0.1)
    loss = smoothed.compute_loss(model, {"input_ids": ids, "attention_mask": mask, "labels": labels})
    scores = log_softmax(model(ids, attention_mask=mask).logits[:, :-1], -1)
    predicted = labels[:, 1:] != -100
    right = -scores.gather(-1, ids[:, 1:, None])[..., 0][predicted].mean()
    expected = 0.9 * right - 0.1 * scores.mean(-1)[predicted].mean()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)


def test_accumulated_steps_of_a_classifier_are_a_mean(tmp_path: Path) -> None:
    model = make_model("plain", dtype=torch.float32)
    scored = AutoModelForSequenceClassification.from_config(model.config)
    steps = trainer(scored, tmp_path, gradient_accumulation_steps=4)
    assert steps.model_accepts_loss_kwargs is False


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks for what transformers is about to rename
@pytest.mark.filterwarnings("ignore:Unsupported layer type")  # and says so of torch's RMSNorm, which it then trains
def test_peft_adapts_by_default_what_it_does_in_a_llama() -> None:
    peft = pytest.importorskip("peft")
    for settings, parts in (
        (peft.LoraConfig(r=2, task_type="CAUSAL_LM"), {"qkv_proj"}),
        (peft.IA3Config(task_type="CAUSAL_LM"), {"qkv_proj", "down_proj"}),
        (peft.LNTuningConfig(task_type="CAUSAL_LM"), {"attention_norm", "mlp_norm", "norm"}),
    ):
        adapted = peft.get_peft_model(make_model("hourglass", dtype=torch.float32), settings)
        names = {name.split(".")[-1] for name, part in adapted.named_modules() if hasattr(part, "base_layer")}
        assert names == parts
        adapted(make_ids(1, 9), labels=make_ids(1, 9)).loss.backward()


def test_pipelines_know_the_model(tmp_path: Path, trained_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    from transformers import AutoTokenizer, pipeline
    from transformers.utils import logging as their

    their.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING, logger="transformers"):
            tokenizer: Any = AutoTokenizer.from_pretrained(trained_run)
            for task, auto in (
                ("text-generation", AutoModelForCausalLM),
                ("text-classification", AutoModelForSequenceClassification),
                ("token-classification", AutoModelForTokenClassification),
                ("feature-extraction", AutoModel),
            ):
                made: Any = pipeline(task, model=auto.from_pretrained(trained_run), tokenizer=tokenizer, device="cpu")
                assert made(["the cat", "so it said"], **({"max_new_tokens": 3} if task == "text-generation" else {}))
    finally:
        their.disable_propagation()
    assert "is not supported for" not in caplog.text


def test_the_loss_is_the_mean_over_predicted_tokens() -> None:
    model = make_model("hourglass")
    ids = make_ids(2, 9)
    out = model(ids, labels=ids)
    expected = cross_entropy(out.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(out.loss.double(), expected, atol=1e-5, rtol=0)
    halved = model(ids, labels=ids, num_items_in_batch=32).loss
    torch.testing.assert_close(halved, out.loss / 2, atol=1e-6, rtol=0)
    shifted = model(ids, shift_labels=torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)).loss
    torch.testing.assert_close(shifted, out.loss, atol=1e-6, rtol=0)
