import copy

import pytest
import torch

from foveate import FoveateConfig, FoveateForCausalLM
from foveate.errors import FoveateError
from foveate.hf.stream import stream, stream_batch

WALKS = ["2@1", "1@1 1@4 1@1:window5", "1@1:fovea4,groups=4,scales=2/4"]


@pytest.fixture(scope="module", params=WALKS)
def model(request):
    torch.manual_seed(2)
    model = FoveateForCausalLM(
        FoveateConfig(
            walk=request.param, vocab_size=40, hidden_size=16, num_attention_heads=2, tie_word_embeddings=False
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model.eval()


def test_streams_what_generate_writes(model) -> None:
    ids = torch.randint(40, (1, 37))
    expected = model.generate(ids, max_new_tokens=30, do_sample=False)[0, 37:].tolist()
    assert list(stream(model, ids, max_new_tokens=30)) == expected
    assert len(set(expected)) > 2


def test_the_same_seed_draws_the_same_and_top_k_1_is_greedy(model) -> None:
    ids = torch.randint(40, (1, 5))

    def draw(seed: int, **options: float) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return list(stream(model, ids, max_new_tokens=20, do_sample=True, generator=generator, **options))

    assert draw(1) == draw(1) != draw(2)
    assert draw(1, top_k=1) == draw(2, temperature=1e-6) == list(stream(model, ids, max_new_tokens=20))


def test_goes_on_from_a_cache_and_tells_what_was_read(model, monkeypatch) -> None:
    monkeypatch.setattr(model.model, "chunk", 8)
    ids, cache, read = torch.randint(40, (1, 30)), model.make_cache(1), []
    model.read(ids[:, :20], cache)
    kept = copy.deepcopy(cache)
    tokens = list(stream(model, ids[:, 20:], max_new_tokens=5, cache=cache, on_read=read.append))
    assert tokens == list(stream(model, ids, max_new_tokens=5))
    assert read == [8, 1]
    assert kept.get_seq_length() == 20
    assert cache.get_seq_length() == 30 + 4


def test_ends_with_the_end_of_text(model, monkeypatch) -> None:
    ids = torch.randint(40, (1, 1))
    tokens = list(stream(model, ids, max_new_tokens=20))
    monkeypatch.setattr(model.generation_config, "eos_token_id", [tokens[3], 39])
    assert list(stream(model, ids, max_new_tokens=20)) == tokens[: tokens.index(tokens[3]) + 1]


def test_the_end_of_text_may_be_the_first_id(model, monkeypatch) -> None:
    monkeypatch.setattr(model.generation_config, "eos_token_id", 0)
    always_0 = {"do_sample": True, "temperature": 1e-6}
    with monkeypatch.context() as patch:
        patch.setattr(model.lm_head, "forward", lambda x: torch.eye(40)[torch.zeros(x.shape[:2], dtype=torch.long)])
        assert list(stream(model, torch.tensor([[3, 4]]), max_new_tokens=5, **always_0)) == [0]


def test_leaves_gradients_as_they_were_between_tokens(model) -> None:
    tokens = stream(model, torch.tensor([[1, 2]]), max_new_tokens=2)
    next(tokens)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("shape", [(2, 3), (1, 0), (3,)])
def test_one_row_of_ids(model, shape) -> None:
    with pytest.raises(FoveateError, match="one row"):
        stream(model, torch.zeros(shape, dtype=torch.long), max_new_tokens=1)


LENGTHS = [5, 30, 1, 17, 8, 64]


@pytest.mark.parametrize("tokens", [1, 3, 40])
def test_a_batch_is_its_rows(model, tokens: int) -> None:
    prompts = [torch.randint(40, (length,)).tolist() for length in LENGTHS]
    written: dict[int, list[int]] = {row: [] for row in range(len(prompts))}
    for row, token in stream_batch(model, prompts, max_new_tokens=tokens):
        written[row].append(token)
    for row, prompt in enumerate(prompts):
        assert written[row] == list(stream(model, torch.tensor([prompt]), max_new_tokens=tokens)), row


def test_rows_of_a_batch_end_each_at_their_own_end_of_text(model, monkeypatch) -> None:
    prompts = [torch.randint(40, (length,)).tolist() for length in LENGTHS]
    alone = [list(stream(model, torch.tensor([prompt]), max_new_tokens=30)) for prompt in prompts]
    ends = [alone[0][3], alone[1][11]]
    monkeypatch.setattr(model.generation_config, "eos_token_id", ends)
    written = [[] for _ in prompts]
    for row, token in stream_batch(model, prompts, max_new_tokens=30):
        written[row].append(token)
    for tokens, expected in zip(written, alone, strict=True):
        first = min((expected.index(end) for end in ends if end in expected), default=29)
        assert tokens == expected[: first + 1]
    assert len({len(tokens) for tokens in written}) > 1


@pytest.mark.parametrize("prompts", [[], [[1], []]])
def test_a_batch_needs_prompts(model, prompts) -> None:
    with pytest.raises(FoveateError, match="at least one token"):
        stream_batch(model, prompts, max_new_tokens=3)
