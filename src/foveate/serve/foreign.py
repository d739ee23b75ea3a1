"""Models that are not ours: one answer after another, through their own ``generate``, whatever their cache is like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from foveate.serve.engine import Answer, Engine, Event, Job, Token, failure, score_prompt, tell


class ForeignEngine(Engine):
    """``generate`` asks ``Next`` for every token and ``Over`` whether that was the last."""

    def __init__(self, model: Any, tokenizer: Any, **limits: int) -> None:
        super().__init__(model, tokenizer, **limits)
        # generate would go by it where a call says nothing, and forbid what a request allows
        kept = {"cache_implementation": model.generation_config.cache_implementation}
        model.generation_config = GenerationConfig(use_cache=True, **kept)
        self._now: Job | None = None

    @property
    def busy(self) -> bool:
        return False

    @property
    def writing(self) -> int:
        return int(self._now is not None)

    def unfinished(self) -> list[Job]:
        return [self._now] if self._now is not None else []

    @torch.inference_mode()
    def work(self) -> None:
        self._now = job = self._next_job()
        if job is None:
            return
        number = 0
        try:
            read = self._score(job) if job.score else None
            for number in range(job.answers):
                if read is not None:
                    tell(job, [Event(job.place, number, read=read)])
                self._answer(job, number)
                if job.cancelled or self._closed:
                    break
        except Exception as error:
            told = failure(error)
            tell(job, [Event(job.place, left, error=told) for left in range(number, job.answers)])
        if not self._closed:
            self._now = None

    def _score(self, job: Job) -> list[Token]:
        ids_1T = torch.tensor([job.prompt], device=self.model.device)
        logits_TV = self.model(ids_1T, use_cache=False).logits[0, :-1]
        return [Token(job.prompt[0]), *score_prompt(logits_TV, job.prompt[1:], job.log_probs or 0)]

    def _answer(self, job: Job, number: int) -> None:
        if not job.max_tokens:
            tell(job, [Event(job.place, number, finish="length")])
            return
        answer = Answer(job, number, self)
        ids_1T = torch.tensor([job.prompt], device=self.model.device)
        self.model.generate(
            ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            max_new_tokens=job.max_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList([Next(answer)]),
            stopping_criteria=StoppingCriteriaList([Over(answer, lambda: self._closed)]),
        )


class Next(LogitsProcessor):
    """Leaves ``generate`` no choice but the token that the request's own rules choose."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits_V = scores[0].float().cpu().numpy()
        token = self.answer.chooser.decide(logits_V)
        assert token is not None
        tell(self.answer.job, [self.answer.write(token, logits_V)])
        only = torch.full_like(scores, -torch.inf)
        only[:, token] = 0
        return only


class Over(StoppingCriteria):
    def __init__(self, answer: Answer, closed: Callable[[], bool]) -> None:
        self.answer, self.closed = answer, closed

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        over = self.answer.over or self.closed()
        return torch.full((len(input_ids),), over, device=input_ids.device, dtype=torch.bool)
