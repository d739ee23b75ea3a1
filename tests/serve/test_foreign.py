"""Models that are not ours: the same server over their own generate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from foveate.serve.engine import Event, Job
from foveate.serve.foreign import ForeignEngine
from serve.serving import make_engine, serving
from serve.test_batching import GREEDY


@pytest.fixture(scope="module")
def llama() -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=258, bos_token_id=256, eos_token_id=256, initializer_range=0.5, **shape)
    model = LlamaForCausalLM(config).eval()
    model.generation_config.update(do_sample=True, temperature=0.1, repetition_penalty=2.0, no_repeat_ngram_size=1)
    return model


@pytest.fixture(scope="module")
def client(llama: Any) -> Iterator[Any]:
    from openai import OpenAI

    with serving(make_engine(llama)) as address:
        yield OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60)


def greedy(llama: Any, prompt: list[int], tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    with torch.no_grad():
        for _ in range(tokens):
            ids = torch.cat((ids, llama(ids, use_cache=False).logits[:, -1:].argmax(-1)), 1)
    return ids[0, len(prompt) :].tolist()


def test_the_likeliest_text_whatever_its_generation_config_says(client: Any, llama: Any) -> None:
    prompt = list(b"the cat")
    new = greedy(llama, prompt, 8)
    with torch.no_grad():
        log_probs = llama(torch.tensor([prompt + new])).logits[0].log_softmax(-1)
    options = {"model": "moon", "prompt": prompt, "max_tokens": 8, "temperature": 0, "echo": True, "logprobs": 1}
    told = client.completions.create(**options).choices[0].logprobs.token_logprobs
    expected = [log_probs[place, token].item() for place, token in enumerate((prompt + new)[1:])]
    assert told[1:] == pytest.approx(expected, abs=1e-4)


def test_answers_streams_and_seeds(client: Any) -> None:
    def draw(**options: Any) -> list[str]:
        answer = client.completions.create(model="moon", prompt="a", max_tokens=10, seed=3, **options)
        return [choice.text for choice in answer.choices]

    both = draw(n=2)
    assert draw(n=2) == both
    assert both[0] != both[1]
    stream = client.completions.create(model="moon", prompt="a", max_tokens=10, seed=3, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == both[0]
    assert client.chat.completions.create(
        model="moon", messages=[{"role": "user", "content": "a"}], max_tokens=3, stop="never"
    ).usage.completion_tokens


def test_who_has_gone_is_not_written_for(llama: Any) -> None:
    engine = make_engine(llama, context=1 << 20)
    assert isinstance(engine, ForeignEngine)
    engine.ends = set()
    seen: list[Event] = []

    def deliver(events: list[Event]) -> None:
        seen.extend(events)
        if len(seen) == 3:
            engine.cancel([job])

    job = Job([1, 2], GREEDY, deliver, 100_000)
    engine.submit([job])
    engine.work()
    assert len(seen) == 3
    assert not engine.busy
