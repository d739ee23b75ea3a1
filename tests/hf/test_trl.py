"""TRL's trainers train a Foveate model; their first losses are those of a loop written by hand, and so are a Llama's.

Two steps of plain gradient descent on the same examples: the second loss holds the first one's gradient, too.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from foveate.data.tokenizer import make_tokenizer
from foveate.hf.classification import FoveateForSequenceClassification
from hf.models import make_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of TRL's and PEFT's own

RATE, STEPS = 0.02, 2
TEXTS = [
    "a cat sat on it",
    "no",
    "the old moon was seen from far away",
    "so it said",
    "it is night and the cat is away",
]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    made: Any = make_tokenizer("bytes", list)
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(params=["hourglass", "retina", "llama"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def causal(family: str, tokenizer: Any, seed: int = 0) -> Any:
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    if family != "llama":
        return make_model(family, dtype=torch.float32, vocab_size=len(tokenizer), seed=seed, **ids)
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.3, **shape, **ids))


def arguments(kind: Any, folder: Path, batch: int, **more: Any) -> Any:
    return kind(
        output_dir=str(folder), per_device_train_batch_size=batch, max_steps=STEPS, learning_rate=RATE, optim="sgd",
        lr_scheduler_type="constant", max_grad_norm=0.0, logging_steps=1, report_to=[], save_strategy="no",
        use_cpu=True, bf16=False, disable_tqdm=True, seed=0, gradient_checkpointing=False, **more,
    )  # fmt: skip


def losses_of(trainer: Any) -> list[float]:
    trainer.train()
    return [record["loss"] for record in trainer.state.log_history if "loss" in record]


def by_hand(model: Any, loss_of: Callable[[Any], Tensor]) -> list[float]:
    optimizer, losses = torch.optim.SGD(model.parameters(), RATE), []
    for _ in range(STEPS):
        loss = loss_of(model.train())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


def assert_same(got: list[float], expected: list[float]) -> None:
    print("trainer", got, "by hand", expected)
    assert len(got) == STEPS
    assert got == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert abs(expected[1] - expected[0]) > 1e-3, "nothing was learned, so nothing was compared"


def logps(model: Any, ids: list[int], begin: int) -> Tensor:
    """Of each token from ``begin`` on, in a call of its own."""
    row = torch.tensor([ids])
    scores = model(input_ids=row).logits[0, :-1].log_softmax(-1)
    return scores.gather(-1, row[0, 1:, None])[begin - 1 :, 0]


@pytest.mark.parametrize("packing", [False, True])
def test_sft(family: str, tokenizer: Any, tmp_path: Path, packing: bool) -> None:
    model = causal(family, tokenizer)
    mine = copy.deepcopy(model)
    rows = [[*tokenizer(text).input_ids, tokenizer.eos_token_id] for text in TEXTS]
    args = arguments(trl.SFTConfig, tmp_path, 5 if not packing else 2, packing=packing, max_length=64)
    data = datasets.Dataset.from_list([{"text": text} for text in TEXTS])
    trainer = trl.SFTTrainer(model=model, args=args, train_dataset=data, processing_class=tokenizer)
    if packing:
        assert len(trainer.train_dataset) == 2, "two packed rows, in one batch"
    got = losses_of(trainer)

    def loss_of(model: Any) -> Tensor:
        return -torch.cat([logps(model, row, 1) for row in rows]).mean()

    assert_same(got, by_hand(mine, loss_of))


def test_sft_on_what_the_assistant_says(family: str, tokenizer: Any, tmp_path: Path) -> None:
    model = causal(family, tokenizer)
    mine = copy.deepcopy(model)
    chats = [
        [{"role": "user", "content": a}, {"role": "assistant", "content": b}]
        for a, b in (("who sat", "a cat"), ("and when was it", "at night"))
    ]
    args = arguments(trl.SFTConfig, tmp_path, 2, assistant_only_loss=True)
    data = datasets.Dataset.from_list([{"messages": chat} for chat in chats])
    got = losses_of(trl.SFTTrainer(model=model, args=args, train_dataset=data, processing_class=tokenizer))
    encoded = [
        tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True) for chat in chats
    ]

    def loss_of(model: Any) -> Tensor:
        said = []
        for row in encoded:
            predicted = torch.tensor(row["assistant_masks"][1:], dtype=torch.bool)
            assert predicted.any()
            said.append(logps(model, row["input_ids"], 1)[predicted])
        return -torch.cat(said).mean()

    assert_same(got, by_hand(mine, loss_of))


PAIRS = [("the cat", " sat on it", " flew"), ("at", " night", " the old moon, far away"), ("so", " it said", "")]


def test_dpo(family: str, tokenizer: Any, tmp_path: Path) -> None:
    model, reference = causal(family, tokenizer), causal(family, tokenizer, seed=1)
    mine = copy.deepcopy(model)
    args = arguments(trl.DPOConfig, tmp_path, 3, beta=0.1, disable_dropout=False)
    data = datasets.Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS])
    trainer = trl.DPOTrainer(
        model=model, ref_model=reference, args=args, train_dataset=data, processing_class=tokenizer
    )
    got = losses_of(trainer)

    def answer(model: Any, prompt: str, text: str) -> Tensor:
        begin = tokenizer(prompt).input_ids
        ids = [*tokenizer(prompt + text).input_ids, tokenizer.eos_token_id]
        return logps(model, ids, len(begin)).sum()

    def loss_of(model: Any) -> Tensor:
        margins = []
        for prompt, *answers in PAIRS:
            with torch.no_grad():
                before = [answer(reference, prompt, text) for text in answers]
            chosen, rejected = (answer(model, prompt, text) - old for text, old in zip(answers, before, strict=True))
            margins.append(chosen - rejected)
        return -logsigmoid(0.1 * torch.stack(margins)).mean()

    assert_same(got, by_hand(mine, loss_of))


def test_reward(family: str, tokenizer: Any, tmp_path: Path) -> None:
    backbone = causal(family, tokenizer)
    backbone.config.num_labels = 1
    kind = LlamaForSequenceClassification if family == "llama" else FoveateForSequenceClassification
    torch.manual_seed(2)
    model = kind(backbone.config)
    model.model.load_state_dict(backbone.model.state_dict())
    torch.nn.init.normal_(model.score.weight)
    mine = copy.deepcopy(model)
    args = arguments(trl.RewardConfig, tmp_path, 3, disable_dropout=False)
    data = datasets.Dataset.from_list([{"chosen": p + c, "rejected": p + r} for p, c, r in PAIRS])
    got = losses_of(trl.RewardTrainer(model=model, args=args, train_dataset=data, processing_class=tokenizer))

    def loss_of(model: Any) -> Tensor:
        def score(text: str) -> Tensor:
            ids = [*tokenizer(text).input_ids, tokenizer.eos_token_id]
            return model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits

        margins = [score(p + c) - score(p + r) for p, c, r in PAIRS]
        return -logsigmoid(torch.stack(margins)).mean()

    assert_same(got, by_hand(mine, loss_of))


def test_grpo(family: str, tokenizer: Any, tmp_path: Path) -> None:
    model = causal(family, tokenizer)
    mine = copy.deepcopy(model)
    sampled: list[tuple[list[int], list[int], float]] = []

    def reward(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        scores = [sum(ids) / 100 for ids in completion_ids]
        for prompt, ids, score in zip(prompts, completion_ids, scores, strict=True):
            sampled.append((tokenizer(prompt).input_ids, list(ids), score))
        return scores

    longest = 12
    args = arguments(
        trl.GRPOConfig, tmp_path, 4, num_generations=4, num_iterations=2, max_completion_length=longest, beta=0.0,
        loss_type="dr_grpo", scale_rewards="none", epsilon=0.2,
    )  # fmt: skip
    data = datasets.Dataset.from_list([{"prompt": "the cat"}])
    trainer = trl.GRPOTrainer(
        model=model, reward_funcs=reward, args=args, train_dataset=data, processing_class=tokenizer
    )
    got = losses_of(trainer)
    assert len(sampled) == 4, "both steps are on one generation"
    mean = sum(score for *_, score in sampled) / 4
    before = [logps(mine, [*prompt, *ids], len(prompt)).detach() for prompt, ids, _ in sampled]

    def loss_of(model: Any) -> Tensor:
        losses = []
        for (prompt, ids, score), old in zip(sampled, before, strict=True):
            ratio = (logps(model, [*prompt, *ids], len(prompt)) - old).exp()
            gain = torch.minimum(ratio * (score - mean), ratio.clamp(0.8, 1.2) * (score - mean))
            losses.append(-gain.sum())
        return torch.stack(losses).sum() / (4 * longest)

    assert_same(got, by_hand(mine, loss_of))
