"""Every surface that takes tokens, with the arguments that touch masks, positions, labels and caches: done or refused.

Each case gives what it got and what is right, by another way, or raises the line by which it is refused. The table in
docs/huggingface.md is written from it:

    PYTHONPATH=src:tests python -m hf.surfaces
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, pad
from transformers import (
    CompileConfig,
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithFlattening,
    DataCollatorWithPadding,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)
from transformers.generation import BaseStreamer

from foveate import FoveateForCausalLM
from foveate.converting import from_llama
from foveate.data.tokenizer import make_tokenizer
from foveate.errors import FoveateError
from foveate.hf.private import checkpointing_argument
from hf.models import greedy, make_ids, make_model, pad_left

PAGE = Path(__file__).parents[2] / "docs" / "huggingface.md"
BEGIN, END = "<!-- made by tests/hf/surfaces.py: begin -->", "<!-- end -->"
Case = Callable[[], tuple[Any, Any]]
MODEL = make_model("hourglass")
IDS = make_ids(2, 16)
LENGTHS = [7, 1, 8]
PARTS = [part for row in IDS for part in row.split(LENGTHS)]
POSITIONS = torch.cat([torch.arange(n) for n in LENGTHS]).expand(2, -1)
NUMBERS = torch.repeat_interleave(torch.arange(3), torch.tensor(LENGTHS)).expand(2, -1)
OFFSETS = pad(torch.tensor(LENGTHS * 2).cumsum(0), (1, 0)).int()
PADDED, MASK = pad_left([make_ids(n, seed=n) for n in (11, 6)])
ALONE = [make_ids(n, seed=n) for n in (11, 6)]


def logits(*args: Any, **inputs: Any) -> Tensor:
    return MODEL(*args, use_cache=inputs.pop("use_cache", False), **inputs).logits


def real(scores: Tensor) -> Tensor:
    return scores[MASK.bool()]


def each(parts: list[Tensor]) -> Tensor:
    return torch.cat([logits(part[None])[0] for part in parts])


def mean_loss(parts: list[Tensor]) -> Tensor:
    scores = torch.cat([logits(part[None])[0, :-1] for part in parts])
    return cross_entropy(scores, torch.cat([part[1:] for part in parts]))


def packed(**inputs: Any) -> Case:
    return lambda: (logits(IDS, **inputs).flatten(0, 1), each(PARTS))


def plain(**inputs: Any) -> Case:
    """What changes nothing, or is refused."""
    return lambda: (logits(IDS, **inputs), logits(IDS))


def read_on(name: str) -> Case:
    def case() -> tuple[Tensor, Tensor]:
        cache = MODEL.make_cache(2)
        first = MODEL(IDS[:, :9], **{name: cache}).logits
        return torch.cat((first, MODEL(IDS[:, 9:], **{name: cache}).logits), 1), logits(IDS)

    return case


def foreign(model: Any) -> Case:
    def case() -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
        llama = LlamaForCausalLM(LlamaConfig(vocab_size=37, **shape)).eval()
        ours = model or from_llama(llama)
        cache: Any = llama(IDS[:, :9], past_key_values=DynamicCache()).past_key_values
        return ours(IDS[:, 9:], past_key_values=cache).logits, llama(IDS).logits[:, 9:]

    return case


FORWARD: dict[str, Case] = {
    "`attention_mask` `[batch, columns]`": lambda: (real(logits(PADDED, attention_mask=MASK)), each(ALONE)),
    "`attention_mask` that numbers documents": packed(attention_mask=NUMBERS + 1),
    "`attention_mask` in 4 dimensions": plain(attention_mask=torch.ones(2, 1, 16, 16)),
    "`attention_mask` of floats to be added": plain(attention_mask=torch.zeros(2, 16)),
    "`position_ids` that count": plain(position_ids=torch.arange(16)[None]),
    "`position_ids` that start over": packed(position_ids=POSITIONS),
    "`position_ids` with gaps": plain(position_ids=2 * torch.arange(16)[None]),
    "`cu_seq_lens_q`, `cu_seq_lens_k`": packed(cu_seq_lens_q=OFFSETS, cu_seq_lens_k=OFFSETS, max_length_q=8),
    "`seq_idx`": packed(seq_idx=NUMBERS.int()),
    "two of these that disagree": packed(seq_idx=NUMBERS.int(), position_ids=torch.arange(8).repeat(2)[None]),
    "documents and `use_cache=True`": packed(seq_idx=NUMBERS.int(), use_cache=True),
    "documents and `output_hidden_states`": packed(seq_idx=NUMBERS.int(), output_hidden_states=True),
    "`inputs_embeds`": lambda: (logits(inputs_embeds=MODEL.get_input_embeddings()(IDS)), logits(IDS)),
    "`past_key_values`": read_on("past_key_values"),
    "`cache`": read_on("cache"),
    "a Llama's filled cache, full attention on level 1": foreign(None),
    "a Llama's filled cache, other walks": foreign(MODEL),
    "`labels`": lambda: (MODEL(IDS, labels=IDS).loss, mean_loss(list(IDS))),
    "`labels` of packed rows": lambda: (MODEL(IDS, labels=IDS, position_ids=POSITIONS).loss, mean_loss(PARTS)),
    "`shift_labels`": lambda: (MODEL(IDS, shift_labels=pad(IDS[:, 1:], (0, 1), value=-100)).loss, mean_loss(list(IDS))),
    "`num_items_in_batch`": lambda: (
        MODEL(IDS, labels=IDS, num_items_in_batch=60).loss, mean_loss(list(IDS)) / 2
    ),
    "`logits_to_keep`": lambda: (logits(IDS, logits_to_keep=3), logits(IDS)[:, -3:]),
    "`logits_to_keep` of columns": lambda: (logits(IDS, logits_to_keep=torch.tensor([2, 9])), logits(IDS)[:, [2, 9]]),
    "`labels` and `logits_to_keep`": lambda: (MODEL(IDS, labels=IDS, logits_to_keep=3).loss, mean_loss(list(IDS))),
    "`output_hidden_states`": lambda: (
        MODEL.lm_head(MODEL(IDS, output_hidden_states=True).hidden_states[-1]), logits(IDS)
    ),
    "`return_dict=False`": lambda: (MODEL(IDS, return_dict=False)[0], logits(IDS)),
    "`output_attentions`": plain(output_attentions=True),
    "`token_type_ids` other than 0": plain(token_type_ids=torch.ones_like(IDS)),
    "`is_causal=False`": plain(is_causal=False),
    "a name it does not know (`atention_mask`)": plain(atention_mask=MASK),
}  # fmt: skip


def generated(ids: Tensor = IDS, **inputs: Any) -> Tensor:
    made: Tensor = MODEL.generate(ids, max_new_tokens=6, **{"do_sample": False, **inputs})
    return made


def same(**inputs: Any) -> Case:
    return lambda: (generated(**inputs), greedy(MODEL, IDS, 6))


def alike(**inputs: Any) -> Case:
    """Of one row, for what takes one alone."""
    return lambda: (generated(IDS[:1], **inputs), greedy(MODEL, IDS[:1], 6))


def uncached(**inputs: Any) -> Case:
    """The same mode with and without a cache."""

    def case() -> tuple[Tensor, Tensor]:
        found = []
        for use_cache in (True, False):
            torch.manual_seed(0)
            found.append(generated(**inputs, use_cache=use_cache))
        return found[0], found[1]

    return case


def left_padded() -> tuple[Tensor, Tensor]:
    new = generated(PADDED, attention_mask=MASK)[:, -6:]
    return new, torch.cat([greedy(MODEL, row[None], 6)[:, -6:] for row in ALONE])


def right_padded() -> tuple[Tensor, Tensor]:
    return generated(PADDED.flip(1), attention_mask=MASK.flip(1)), PADDED


class Heard(BaseStreamer):
    def __init__(self) -> None:
        self.tokens: list[Tensor] = []

    def put(self, value: Tensor) -> None:
        self.tokens.append(value.flatten())

    def end(self) -> None:
        pass


def streamed() -> tuple[Tensor, Tensor]:
    heard = Heard()
    generated(IDS[:1], streamer=heard)
    return torch.cat(heard.tokens), greedy(MODEL, IDS[:1], 6)[0]


def from_cache() -> tuple[Tensor, Tensor]:
    return generated(past_key_values=MODEL.read(IDS[:, :9], MODEL.make_cache(2))), greedy(MODEL, IDS, 6)


GENERATE: dict[str, Case] = {
    "`attention_mask`, padded on the left": left_padded,
    "`attention_mask`, padded on the right": right_padded,
    "`use_cache=False`": same(use_cache=False),
    "`past_key_values`": from_cache,
    "`prefill_chunk_size`": same(prefill_chunk_size=5),
    "`inputs_embeds`": lambda: (
        MODEL.generate(inputs_embeds=MODEL.get_input_embeddings()(IDS), max_new_tokens=6, do_sample=False),
        greedy(MODEL, IDS, 6)[:, -6:],
    ),
    "`num_beams`": uncached(num_beams=3),
    "`do_sample`, `num_return_sequences`": uncached(do_sample=True, num_return_sequences=2),
    "`repetition_penalty`, `no_repeat_ngram_size`": uncached(repetition_penalty=1.3, no_repeat_ngram_size=2),
    "`assistant_model`": alike(assistant_model=make_model("top_down", seed=5)),
    "`prompt_lookup_num_tokens`": alike(prompt_lookup_num_tokens=3),
    "`streamer`": streamed,
    "`cache_implementation=\"static\"`": same(cache_implementation="static"),
    "`cache_implementation=\"offloaded\"`": same(cache_implementation="offloaded"),
    "`compile_config` without a static cache": same(compile_config=CompileConfig()),
    "`output_attentions`": same(output_attentions=True, return_dict_in_generate=True),
    "a name it does not know (`atention_mask`)": same(atention_mask=MASK),
    "`generate_batch`": lambda: (MODEL.generate_batch([[3, 4]]), None),
}  # fmt: skip


def trained(rows: list[Tensor], batch: int, **arguments: Any) -> Tensor:
    """The first loss that Trainer reports for steps at rate 0."""
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder, max_steps=1, learning_rate=0.0, per_device_train_batch_size=batch, logging_steps=1, report_to=[],
            save_strategy="no", use_cpu=True, disable_tqdm=True, log_level="error", **arguments,
        )  # fmt: skip
        model: Any = FoveateForCausalLM(MODEL.config).double()
        model.load_state_dict(MODEL.state_dict())
        data: Any = [{"input_ids": row, "labels": row} for row in rows]
        trainer = Trainer(model=model, args=args, train_dataset=data, data_collator=PAD_LABELS)
        with torch.enable_grad():
            trainer.train()
    return torch.tensor(next(record["loss"] for record in trainer.state.log_history if "loss" in record))


def smoothed() -> tuple[Tensor, Tensor]:
    scores = log_softmax(logits(IDS)[:, :-1], -1)
    right = -scores.gather(-1, IDS[:, 1:, None]).mean()
    return trained(list(IDS), 2, label_smoothing_factor=0.1), 0.9 * right - 0.1 * scores.mean()


TRAINER: dict[str, Case] = {
    "padded labels": lambda: (trained(ALONE, 2), mean_loss(ALONE)),
    "`label_smoothing_factor`": smoothed,
    "`gradient_accumulation_steps`": lambda: (trained(ALONE, 1, gradient_accumulation_steps=2), mean_loss(ALONE)),
    "activation checkpointing": lambda: (trained(ALONE, 2, **{checkpointing_argument(): True}), mean_loss(ALONE)),
    "`average_tokens_across_devices=False`": lambda: (
        trained(ALONE, 2, average_tokens_across_devices=False), mean_loss(ALONE)
    ),
}  # fmt: skip


def tokenizer() -> Any:
    made: Any = make_tokenizer("bytes", list)
    made.pad_token_id = 0
    made.padding_side = "right"  # on the left, a first token counts as predicted from padding, here as in a Llama
    return made


TOKENIZER = tokenizer()
PAD_LABELS = DataCollatorForSeq2Seq(TOKENIZER)


def collated(collator: Any, labelled: bool = True) -> Case:
    """The loss of a batch that a collator has made, and that of its texts one by one."""

    def case() -> tuple[Tensor, Tensor]:
        texts: Any = [{"input_ids": row.tolist(), **({"labels": row.tolist()} if labelled else {})} for row in ALONE]
        batch = dict(collator(texts))
        labels = batch.get("labels")
        if labels is None:
            return real_of(batch), each(ALONE)
        return MODEL(**batch, use_cache=False).loss, mean_loss(ALONE)

    return case


def real_of(batch: dict[str, Tensor]) -> Tensor:
    return logits(**batch)[batch["attention_mask"].bool()]


COLLATORS: dict[str, Case] = {
    "`DataCollatorWithPadding`": collated(DataCollatorWithPadding(TOKENIZER), labelled=False),
    "`DataCollatorForLanguageModeling(mlm=False)`": collated(
        DataCollatorForLanguageModeling(TOKENIZER, mlm=False), labelled=False
    ),
    "`DataCollatorForSeq2Seq`": collated(PAD_LABELS),
    "`DataCollatorForTokenClassification`": collated(DataCollatorForTokenClassification(TOKENIZER)),
    "`DataCollatorWithFlattening()`": collated(DataCollatorWithFlattening()),
    "`DataCollatorWithFlattening(return_seq_idx=True)`": collated(DataCollatorWithFlattening(return_seq_idx=True)),
    "`DataCollatorWithFlattening(return_flash_attn_kwargs=True)`": collated(
        DataCollatorWithFlattening(return_flash_attn_kwargs=True)
    ),
}  # fmt: skip

SURFACES = {"forward": FORWARD, "generate": GENERATE, "Trainer": TRAINER, "collator": COLLATORS}


def outcome(case: Case) -> str:
    """Done, or refused and the line.

    Raises:
        AssertionError: it was taken, and something else was done.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            got, expected = case()
        except (FoveateError, ValueError) as error:
            return f"refused: {str(error).split(' (note')[0]}"
    if got.is_floating_point():
        torch.testing.assert_close(got.double(), expected.double(), atol=1e-5, rtol=1e-5)
    else:
        assert torch.equal(got, expected)
    return "done"


def table() -> str:
    lines = ["| | | |", "|---|---|---|"]
    for surface, cases in SURFACES.items():
        lines += [f"| {surface} | {argument} | {outcome(case)} |" for argument, case in cases.items()]
    return "\n".join(lines)


def write() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    write()
