"""Every way people call a causal language model gives what reading the whole text again would give."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.generation.streamers import BaseStreamer

from foveate import FoveateForCausalLM
from foveate.errors import FoveateError
from hf.models import FAMILIES, greedy, make_ids, make_model, pad_left

NEW = 10


def slow(value: int) -> Any:
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def draft() -> FoveateForCausalLM:
    return make_model("plain", seed=0, walk="2@1")


def make_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=37, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        initializer_range=0.3, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).double().eval()


def cached_and_not(model: FoveateForCausalLM, ids: Tensor, **how: object) -> tuple[Tensor, Tensor]:
    outs = []
    for use_cache in (True, False):
        torch.manual_seed(5)
        outs.append(model.generate(ids, max_new_tokens=NEW, use_cache=use_cache, **how))
    return outs[0], outs[1]


MODES: dict[str, dict] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "temperature": 1.3, "top_k": 0},
    "return_sequences": {"do_sample": True, "num_return_sequences": 3},
    "beam": {"num_beams": 3, "do_sample": False},
    "beam_return_sequences": {"num_beams": 4, "num_return_sequences": 2, "do_sample": False},
    "beam_sampling": {"num_beams": 3, "do_sample": True},
    "penalties": {"do_sample": False, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
}


@pytest.mark.parametrize("mode", MODES)
def test_cached_tokens_are_those_without_a_cache(model: FoveateForCausalLM, mode: str) -> None:
    cached, uncached = cached_and_not(model, make_ids(2, 11), **MODES[mode])
    assert torch.equal(cached, uncached)


def test_greedy_is_the_argmax_of_the_plain_forward(model: FoveateForCausalLM) -> None:
    ids = make_ids(1, 9)
    assert torch.equal(model.generate(ids, max_new_tokens=NEW, do_sample=False), greedy(model, ids, NEW))


def test_scores_are_the_logits_of_the_plain_forward(model: FoveateForCausalLM) -> None:
    out = model.generate(
        make_ids(2, 9), max_new_tokens=NEW, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    with torch.no_grad():
        whole = model(out.sequences, use_cache=False).logits
    torch.testing.assert_close(torch.stack(out.logits, 1).double(), whole[:, 8:-1], atol=1e-5, rtol=1e-5)  # fp32 scores


def ragged_rows() -> list[Tensor]:
    return [make_ids(length, seed=length) for length in (23, 1, 2, 7, 12, 16, 4, 19)]


def test_left_padded_rows_generate_what_they_would_alone(model: FoveateForCausalLM) -> None:
    rows = ragged_rows()
    ids, mask = pad_left(rows)
    together = model.generate(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
    for row, out in zip(rows, together, strict=True):
        assert torch.equal(out[-len(row) - NEW :], greedy(model, row[None], NEW)[0])


def test_beams_of_left_padded_rows(model: FoveateForCausalLM) -> None:
    rows = ragged_rows()[:3]
    ids, mask = pad_left(rows)
    how: dict = {"num_beams": 3, "do_sample": False, "max_new_tokens": 8}
    together = model.generate(ids, attention_mask=mask, **how)
    for row, out in zip(rows, together, strict=True):
        assert torch.equal(out[-len(row) - 8 :], model.generate(row[None], use_cache=False, **how)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_padding_gives_each_row_alone(family: str, dtype: torch.dtype, padding: range = range(0, 71, 23)) -> None:
    model = make_model(family, dtype=dtype)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-10}[dtype]
    rows = ragged_rows()
    with torch.no_grad():
        alone = [model(row[None]).logits[0] for row in rows]
        largest = max(float(logits.abs().max()) for logits in alone)
        for columns in padding:
            ids, mask = pad_left(rows, 23 + columns)
            together = model(ids, attention_mask=mask).logits
            for row, out, expected in zip(rows, together, alone, strict=True):
                assert (out[-len(row) :] - expected).abs().max() <= tolerance * max(1.0, largest)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_padding_from_0_to_70(family: str, dtype: torch.dtype) -> None:
    test_every_padding_gives_each_row_alone(family, dtype, range(71))


@pytest.mark.parametrize("where", ["right", "middle", "all_over"])
def test_padding_elsewhere_gives_each_row_alone(model: FoveateForCausalLM, where: str) -> None:
    rows = [make_ids(length, seed=length) for length in (13, 5, 9)]
    mask = torch.zeros(3, 20, dtype=torch.long)
    for row, real in zip(rows, mask, strict=True):
        columns = {
            "right": torch.arange(len(row)),
            "middle": torch.cat((torch.arange(3), torch.arange(20 - len(row) + 3, 20))),
            "all_over": torch.randperm(20, generator=torch.Generator().manual_seed(len(row)))[: len(row)].sort()[0],
        }[where]
        real[columns] = 1
    ids = torch.zeros(3, 20, dtype=torch.long)
    ids[mask == 1] = torch.cat(rows)
    with torch.no_grad():
        out = model(ids, attention_mask=mask).logits
        for row, real, logits in zip(rows, mask, out, strict=True):
            torch.testing.assert_close(logits[real == 1], model(row[None]).logits[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    "tokens",
    [
        5,
        slow(1),
        slow(20),
        slow(100),
    ],
)
def test_assisted_decoding_gives_the_targets_greedy_text(
    model: FoveateForCausalLM, draft: FoveateForCausalLM, tokens: int
) -> None:
    ids = make_ids(1, 9)
    expected = greedy(model, ids, 25)
    draft.generation_config.num_assistant_tokens = tokens
    draft.generation_config.num_assistant_tokens_schedule = "constant"
    draft.generation_config.assistant_confidence_threshold = 0
    out = model.generate(ids, assistant_model=draft, max_new_tokens=25, do_sample=False)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("tokens", [7, slow(1), slow(100)])
def test_every_family_drafts_for_itself_and_for_a_llama(model: FoveateForCausalLM, tokens: int) -> None:
    ids = make_ids(1, 9)
    drafting = copy.deepcopy(model)
    drafting.generation_config.num_assistant_tokens = tokens
    drafting.generation_config.num_assistant_tokens_schedule = "constant"
    drafting.generation_config.assistant_confidence_threshold = 0
    calls: list[int] = []
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    out = model.generate(ids, assistant_model=drafting, max_new_tokens=25, do_sample=False)
    hook.remove()
    assert torch.equal(out, greedy(model, ids, 25))
    assert len(calls) <= -(-25 // (tokens + 1)) + 1, "an exact draft was not believed, so its cache was wrong"
    llama = make_llama()
    expected = llama.generate(ids, max_new_tokens=25, do_sample=False)
    assert torch.equal(llama.generate(ids, assistant_model=drafting, max_new_tokens=25, do_sample=False), expected)


def test_a_llama_drafts(model: FoveateForCausalLM) -> None:
    ids = make_ids(1, 9)
    out = model.generate(ids, assistant_model=make_llama(), max_new_tokens=30, do_sample=False)
    assert torch.equal(out, greedy(model, ids, 30))


@pytest.mark.parametrize("tokens", [3, slow(90)])
def test_prompt_lookup(model: FoveateForCausalLM, tokens: int) -> None:
    ids = make_ids(1, 6).repeat(1, 20)
    out = model.generate(ids, prompt_lookup_num_tokens=tokens, max_new_tokens=25, do_sample=False)
    assert torch.equal(out, greedy(model, ids, 25))


def test_assisted_decoding_goes_on_from_a_cache_read_before(
    model: FoveateForCausalLM, draft: FoveateForCausalLM
) -> None:
    ids = make_ids(1, 60)
    cache = model.read(ids[:, :50], model.make_cache())
    out = model.generate(ids, past_key_values=cache, assistant_model=draft, max_new_tokens=30, do_sample=False)
    assert torch.equal(out, greedy(model, ids, 30))


def test_rings_stop_growing_after_assisted_decoding() -> None:
    model = make_model("window")
    cache = model.make_cache()
    ids = make_ids(1, 6).repeat(1, 5)
    out = model.generate(ids, past_key_values=cache, prompt_lookup_num_tokens=4, max_new_tokens=30, do_sample=False)
    slack = cache.steps.slack
    assert slack < 200
    again = model.generate(out, past_key_values=cache, max_new_tokens=300, do_sample=False)
    assert cache.steps.slack == slack
    assert torch.equal(again[:, :90], greedy(model, out, 30))


class Collector(BaseStreamer):
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.ended = False

    def put(self, value: Tensor) -> None:
        self.ids += value.flatten().tolist()

    def end(self) -> None:
        self.ended = True


def test_streamers_get_every_token(model: FoveateForCausalLM) -> None:
    streamer = Collector()
    ids = make_ids(1, 9)
    out = model.generate(ids, max_new_tokens=NEW, do_sample=False, streamer=streamer)
    assert streamer.ids == out[0].tolist()
    assert streamer.ended


def test_stopping_criteria_and_end_of_text(model: FoveateForCausalLM) -> None:
    ids = make_ids(2, 9)
    whole = greedy(model, ids, NEW)
    at_13: Callable[..., Tensor] = lambda ids, scores, **_: torch.full((len(ids),), ids.shape[1] >= 13)  # noqa: E731
    out = model.generate(ids, max_new_tokens=NEW, do_sample=False, stopping_criteria=[at_13])
    assert torch.equal(out, whole[:, :13])
    end = int(whole[0, 14])
    out = model.generate(ids, max_new_tokens=NEW, do_sample=False, eos_token_id=end, pad_token_id=0)
    for got, full in zip(out, whole, strict=True):
        found = (full[9:] == end).nonzero()
        upto = 9 + int(found[0]) + 1 if len(found) else 9 + NEW
        assert torch.equal(got[:upto], full[:upto])
        assert not got[upto:].any()


def test_stop_strings(model: FoveateForCausalLM) -> None:
    letters = {chr(97 + i) if i < 26 else chr(39 + i): i for i in range(37)}
    words = Tokenizer(WordLevel(letters, unk_token="a"))
    words.pre_tokenizer, words.decoder = Split(Regex("."), "isolated"), Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    ids = make_ids(1, 9)
    whole = greedy(model, ids, NEW)
    stop = tokenizer.decode(whole[0, 12:14])
    out = model.generate(ids, max_new_tokens=NEW, do_sample=False, stop_strings=[stop], tokenizer=tokenizer)
    written = tokenizer.decode(whole[0, 9:])
    assert tokenizer.decode(out[0, 9:]) == written[: written.index(stop) + len(stop)]


def test_embeddings_instead_of_ids(model: FoveateForCausalLM) -> None:
    ids = make_ids(2, 9)
    with torch.no_grad():
        embeds = model.get_input_embeddings()(ids)
    out = model.generate(inputs_embeds=embeds, max_new_tokens=NEW, do_sample=False)
    assert torch.equal(out, greedy(model, ids, NEW)[:, 9:])


@pytest.mark.parametrize(
    "size",
    [
        4,
        slow(1),
        slow(5),
        slow(100),
    ],
)
def test_chunked_prefill(model: FoveateForCausalLM, size: int) -> None:
    rows = ragged_rows()[:3]
    ids, mask = pad_left(rows)
    how: dict = {"max_new_tokens": 6, "do_sample": False}
    expected = model.generate(ids, attention_mask=mask, **how)
    assert torch.equal(model.generate(ids, attention_mask=mask, prefill_chunk_size=size, **how), expected)


def test_a_document_is_read_once_and_asked_often(model: FoveateForCausalLM) -> None:
    document, questions = make_ids(1, 41), [make_ids(1, n, seed=n) for n in (3, 1, 6)]
    cache = model.read(document, model.make_cache())
    columns: list[int] = []
    hook = model.model.register_forward_pre_hook(lambda _, args: columns.append(args[0].shape[1]))
    answers = []
    for question in questions:
        ids = torch.cat((document, question), 1)
        answers.append(model.generate(ids, past_key_values=copy.deepcopy(cache), max_new_tokens=NEW, do_sample=False))
    hook.remove()
    assert cache.seen == 41
    assert max(columns) == 6, "the document was read again"
    for question, answer in zip(questions, answers, strict=True):
        assert torch.equal(answer, greedy(model, torch.cat((document, question), 1), NEW))


def test_a_read_document_under_beams_and_several_answers(model: FoveateForCausalLM) -> None:
    document, ids = make_ids(1, 20), make_ids(1, 24)
    ids[:, :20] = document
    cache = model.read(document, model.make_cache())
    for how in ({"num_beams": 3}, {"num_return_sequences": 3, "do_sample": True}):
        torch.manual_seed(3)
        out = model.generate(ids, past_key_values=copy.deepcopy(cache), max_new_tokens=8, **how)
        torch.manual_seed(3)
        assert torch.equal(out, model.generate(ids, use_cache=False, max_new_tokens=8, **how))


def test_turns_of_a_conversation_share_a_cache(model: FoveateForCausalLM) -> None:
    cache = model.make_cache(2)
    rows = ragged_rows()[2:4]
    ids, mask = pad_left(rows)
    for turn in range(3):
        out = model.generate(ids, attention_mask=mask, past_key_values=cache, max_new_tokens=5, do_sample=False)
        for row, got in zip(rows, out, strict=True):
            assert torch.equal(got[-len(row) - 5 :], greedy(model, row[None], 5)[0])
        said = make_ids(2, 3, seed=turn)
        ids = torch.cat((out, said), 1)
        mask = torch.cat((mask, torch.ones(2, 8, dtype=torch.long)), 1)
        rows = [torch.cat((got[-len(row) - 5 :], new)) for row, got, new in zip(rows, out, said, strict=True)]


def test_logits_to_keep(model: FoveateForCausalLM) -> None:
    ids = make_ids(2, 9)
    with torch.no_grad():
        whole = model(ids).logits
        for keep in (1, 4, torch.tensor([0, 3, 8])):
            expected = whole[:, keep] if isinstance(keep, Tensor) else whole[:, -keep:]
            torch.testing.assert_close(model(ids, logits_to_keep=keep).logits, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"cache_implementation": "offloaded"}, "cache_implementation='offloaded'"),
        ({"cache_implementation": "quantized"}, "cache_implementation='quantized'"),
        ({"cache_implementation": "paged"}, "continuous batching"),
        ({"output_attentions": True, "return_dict_in_generate": True}, "output_attentions"),
        ({"attention_mask": torch.tensor([[1, 1, 1, 0]])}, "ends in padding"),
        (
            {"prompt_lookup_num_tokens": 2, "output_hidden_states": True, "return_dict_in_generate": True},
            "output_hidden_states",
        ),
    ],
)
def test_what_cannot_work_is_refused(how: dict, message: str) -> None:
    with pytest.raises(FoveateError, match=message):
        make_model("hourglass").generate(make_ids(1, 4), max_new_tokens=3, **how)


def test_continuous_batching_is_refused() -> None:
    model = make_model("hourglass")
    with pytest.raises(FoveateError, match="continuous batching"):
        model.generate_batch([[1, 2, 3]], generation_config=GenerationConfig(max_new_tokens=2))
    assert not hasattr(model, "init_continuous_batching")


def test_contrastive_search_is_not_ours() -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):  # transformers loads it from elsewhere
        make_model("hourglass").generate(make_ids(1, 4), penalty_alpha=0.6, top_k=4, max_new_tokens=3)


def test_a_prompt_that_was_wholly_read_is_refused() -> None:
    model, ids = make_model("hourglass"), make_ids(1, 9)
    cache = model.read(ids, model.make_cache())
    for prompt in (ids, ids[:, :4]):
        with pytest.raises(FoveateError, match="has read 9 columns"):
            model.generate(prompt, past_key_values=cache, max_new_tokens=3)
