"""Answers written beside others are those written alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from foveate.hf.phases import coarsest_stride
from foveate.serve import batching
from foveate.serve.batching import BatchingEngine
from foveate.serve.choice import Sampling
from foveate.serve.engine import Event, Job
from hf.models import FAMILIES, make_model
from serve.serving import byte_tokenizer

GREEDY = Sampling(temperature=0)


def engine_of(model: Any, **limits: int) -> BatchingEngine:
    engine = BatchingEngine(model, byte_tokenizer(), **{"context": 4096, **limits})
    engine.ends = set()
    return engine


def small(family: str, **changes: Any) -> Any:
    return make_model(family, **{"vocab_size": 258, **changes})


class Requests:
    """Jobs that come one after another while the engine works, and what they got."""

    def __init__(self, engine: BatchingEngine, jobs: list[Job], every: int = 3) -> None:
        self.events: list[Event] = []
        for place, job in enumerate(jobs):
            job.deliver, job.place = self.events.extend, place
        waiting, steps = list(jobs), 0
        while waiting or engine.busy or engine.waiting:
            if waiting and steps % every == 0:
                engine.submit([waiting.pop(0)])
            engine.work()
            steps += 1
            assert steps < 5000

    def tokens(self, place: int, number: int = 0) -> list[int]:
        return [t.id for event in self._of(place, number) for t in event.tokens]

    def finish(self, place: int, number: int = 0) -> Any:
        last = self._of(place, number)[-1]
        return last.error or last.finish

    def _of(self, place: int, number: int) -> list[Event]:
        return [event for event in self.events if (event.prompt, event.number) == (place, number)]


def job(prompt: list[int], tokens: int, sampling: Sampling = GREEDY, **options: Any) -> Job:
    return Job(prompt, sampling, list, tokens, **options)


def prompts(count: int, longest: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(256) for _ in range(draw.randint(1, longest))] for _ in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_come_and_go_get_what_generate_gives_them(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "BLOCK", 8)
    model = small(family)
    given, lengths = prompts(9, 30), [40, 3, 17, 1, 25, 8, 33, 5, 12]
    engine = engine_of(model, batch=4)
    asked = Requests(engine, [job(*pair) for pair in zip(given, lengths, strict=True)])
    for place, (prompt, length) in enumerate(zip(given, lengths, strict=True)):
        ids = torch.tensor([prompt])
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False)
        assert asked.tokens(place) == written[0, len(prompt) :].tolist()
        assert asked.finish(place) == "length"


def test_coarse_layers_work_for_all_rows_at_once() -> None:
    model = small("hourglass")
    engine = engine_of(model)
    calls: list[int] = []
    coarse = model.model.decoder.steps[2].layers[0]
    for place, prompt in enumerate([[1] * 9, [1] * 3, [1] * 6]):
        engine.submit([job(prompt, 60, place=place)])
    for _ in range(8):
        engine.work()
    assert len(engine.rows) == 3
    hook = coarse.register_forward_hook(lambda module, args, output: calls.append(len(output)))
    for _ in range(4 * coarsest_stride(model.config.spec)):
        engine.work()
    hook.remove()
    assert calls == [3, 3, 3, 3]


class Shaken(BatchingEngine):
    """Whose batch computes less exactly than any would, differently each time."""

    random = np.random.default_rng(0)

    def _go_on(self, row: Any, logits_V: np.ndarray) -> Event:
        off = batching.TOLERANCE * max(1.0, float(np.abs(logits_V).max())) * 0.9
        return super()._go_on(row, logits_V + self.random.uniform(-off, off, len(logits_V)))


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=4), Sampling(seed=4, temperature=0.8, top_p=0.9, top_k=20)])
def test_equal_requests_get_equal_texts_however_the_batch_computes(
    sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "TOLERANCE", 0.003)
    monkeypatch.setattr(batching, "BLOCK", 8)
    model = small("hourglass", dtype=torch.float32)
    engine = Shaken(model, byte_tokenizer(), context=4096)
    engine.ends = set()
    asked = Requests(engine, [job([5, 6, 7] * 6, 50, sampling) for _ in range(6)])
    texts = {tuple(asked.tokens(place)) for place in range(6)}
    assert len(texts) == 1
    assert 0 < engine.read_again < engine.written / 2
    alone = Requests(engine_of(model), [job([5, 6, 7] * 6, 50, sampling)])
    assert tuple(alone.tokens(0)) in texts


def test_neighbours_change_far_less_than_the_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("hourglass", dtype=torch.float32)
    engine, off = engine_of(model), []
    monkeypatch.setattr(batching, "BLOCK", 16)
    go_on = engine._go_on

    def compare(row: Any, logits_V: np.ndarray) -> Event:
        off.append(np.abs(engine._alone(row) - logits_V).max() / max(1.0, np.abs(logits_V).max()))
        return go_on(row, logits_V)

    engine._go_on = compare  # type: ignore[method-assign]
    Requests(engine, [job(prompt, 30) for prompt in prompts(6, 40)], every=5)
    assert 0 < max(off) < batching.TOLERANCE / 4


def test_in_half_precision_a_seed_is_written_alone() -> None:
    model = small("hourglass", dtype=torch.bfloat16)
    seeded = Sampling(seed=1)
    alone = Requests(engine_of(model), [job([1, 2, 3], 40, seeded)]).tokens(0)
    engine = engine_of(model)
    asked = Requests(engine, [*[job(p, 60, Sampling()) for p in prompts(4, 20)], job([1, 2, 3], 40, seeded)])
    assert asked.tokens(4) == alone
    assert [len(asked.tokens(place)) for place in range(4)] == [60] * 4


def test_answers_of_one_prompt_differ_and_repeat() -> None:
    model = small("hourglass")
    asked = Requests(engine_of(model, batch=2), [job([1, 2, 3], 10, Sampling(seed=1), answers=5)])
    texts = [tuple(asked.tokens(0, number)) for number in range(5)]
    assert len(set(texts)) == 5
    again = Requests(engine_of(model), [job([1, 2, 3], 10, Sampling(seed=1), answers=2)])
    assert [tuple(again.tokens(0, number)) for number in range(2)] == texts[:2]


def test_prompts_and_answers_are_scored() -> None:
    model = small("window")
    prompt = prompts(1, 30, seed=2)[0] * 3
    asked = Requests(engine_of(model), [job(prompt, 5, log_probs=2, score=True)])
    ids = torch.tensor([prompt + asked.tokens(0)])
    log_probs_TV = model(ids).logits[0].log_softmax(-1)
    read = next(event.read for event in asked.events if event.read is not None)
    told = [*read, *(token for event in asked.events for token in event.tokens)]
    assert [token.id for token in told] == ids[0].tolist()
    assert told[0].log_prob is None
    for place, token in enumerate(told[1:]):
        values, best = log_probs_TV[place].topk(2)
        assert token.log_prob == pytest.approx(log_probs_TV[place, token.id].item(), abs=1e-5)
        assert [other for other, _ in token.likeliest] == best.tolist()
        assert [value for _, value in token.likeliest] == pytest.approx(values.tolist(), abs=1e-5)


def test_who_is_cancelled_leaves_room_and_changes_nobody() -> None:
    model = small("hourglass")
    expected = Requests(engine_of(model), [job([1, 2], 30)]).tokens(0)
    engine = engine_of(model, batch=2)
    events: list[Event] = []
    gone = job([3, 4, 5], 3000)
    engine.submit([gone, Job([1, 2], GREEDY, events.extend, 30)])
    for _ in range(12):
        engine.work()
    engine.cancel([gone])
    while engine.busy:
        engine.work()
    assert [token.id for event in events for token in event.tokens] == expected
    assert not engine.rows


def test_a_step_that_fails_is_told_and_the_next_request_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("hourglass")
    engine = engine_of(model)
    events: list[Event] = []
    engine.submit([Job([1, 2, 3], GREEDY, events.extend, 30)])
    engine.work()

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(model.model.decoder.steps[0], "forward", fail)
        engine.work()
    assert events[-1].error is not None
    assert events[-1].error.status == 503
    assert not engine.busy
    assert len(Requests(engine, [job([1, 2, 3], 4)]).tokens(0)) == 4


def test_weights_that_are_no_numbers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("plain")
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    assert "not numbers" in str(Requests(engine_of(model), [job([1], 5)]).finish(0))


def test_closing_ends_everything_at_the_next_token() -> None:
    engine = engine_of(small("hourglass"), batch=1)
    events: list[Event] = []
    engine.submit([Job([1, 2], GREEDY, events.extend, 3000, place=place) for place in range(2)])
    engine.start()
    while not events:
        pass
    engine.close(wait=10)
    assert {event.prompt for event in events if event.error and event.error.status == 503} == {0, 1}
    with pytest.raises(Exception, match="shutting down"):
        engine.submit([job([1], 1)])
