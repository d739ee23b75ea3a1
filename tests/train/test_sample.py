from __future__ import annotations

import pytest
import torch

from foveate import FoveateConfig, FoveateForCausalLM
from foveate.errors import FoveateError
from foveate.train.sample import _Pieces, sample


def test_streams_what_generate_gives(llama, tokenizer) -> None:
    pieces: list[str] = []
    result = sample(llama, tokenizer, "ab", tokens=30, seed=5, on_text=pieces.append)
    torch.manual_seed(5)
    ids = torch.tensor([[256, 97, 98]])
    expected = llama.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=True, top_k=0)
    assert len(pieces) > 1
    assert "".join(pieces) == result.text
    # an unfinished character at the end is dropped, not shown as a replacement sign
    assert tokenizer.decode(expected[0, 3:], skip_special_tokens=True).rstrip("\ufffd") == result.text.rstrip("\ufffd")
    assert result.tokens == expected.shape[1] - 3


def test_greedy_is_the_likeliest_and_needs_no_seed(llama, tokenizer) -> None:
    texts = {sample(llama, tokenizer, "ab", tokens=10, greedy=True).text for _ in range(2)}
    assert len(texts) == 1


def test_a_seed_repeats_the_text_and_another_does_not(llama, tokenizer) -> None:
    first, again, other = (sample(llama, tokenizer, "ab", tokens=30, seed=seed).text for seed in (1, 1, 2))
    assert first == again != other


def test_top_k_of_one_is_greedy(llama, tokenizer) -> None:
    greedy = sample(llama, tokenizer, "ab", tokens=10, greedy=True).text
    assert sample(llama, tokenizer, "ab", tokens=10, top_k=1, seed=0).text == greedy
    assert sample(llama, tokenizer, "ab", tokens=10, top_p=1e-6, seed=0).text == greedy


def test_characters_are_shown_whole(tokenizer) -> None:
    shown: list[str] = []
    pieces = _Pieces(tokenizer, [256, 97], shown.append)
    pieces.put(torch.tensor([[256, 97]]))
    for byte in "é東🙂x".encode() + "京".encode()[:2]:
        pieces.put(torch.tensor([byte]))
    assert shown == ["é", "東", "🙂", "x"]
    assert pieces.text == "é東🙂x"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"prompt": "a" * 64}, "the prompt has 65 tokens, the model positions for 64"),
        ({"tokens": 62}, "--tokens: 62 after a prompt of 3 are more than the model's 64 positions; write 61 or fewer"),
        ({"temperature": 0.0}, "--temperature: 0 must be above 0"),
        ({"temperature": float("nan")}, "--temperature: nan must be above 0"),
        ({"top_k": 0}, "--top-k: 0 must be at least 1"),
        ({"top_p": 1.5}, "--top-p: 1.5 must be above 0 and at most 1"),
    ],
)
def test_what_cannot_be_done_is_said(llama, tokenizer, given, line) -> None:
    with pytest.raises(FoveateError) as error:
        sample(llama, tokenizer, **{"prompt": "ab", **given})
    assert str(error.value).startswith(line)


def test_without_a_limit_it_fills_the_positions_at_most(llama, tokenizer) -> None:
    assert sample(llama, tokenizer, "ab", seed=3).tokens <= 61


def test_a_retina_reads_a_prompt_of_any_length_and_tells_how_far_it_is(tokenizer) -> None:
    shape = {"vocab_size": 257, "hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": 64}
    retina = FoveateForCausalLM(FoveateConfig(walk="1@1:fovea4,groups=4,scales=2/4", **shape)).eval()
    read: list[tuple[int, int]] = []
    result = sample(retina, tokenizer, "ab" * 5000, tokens=3, greedy=True, on_read=lambda *of: read.append(of))
    assert result.tokens == 3
    assert sum(tokens for tokens, _ in read) == 10_000  # all but the last id, which makes the first new one
    assert {total for _, total in read} == {10_001}
    with pytest.raises(FoveateError, match="positions for 64"):
        sample(FoveateForCausalLM(FoveateConfig(walk="1@1", **shape)), tokenizer, "ab" * 50, tokens=3)
