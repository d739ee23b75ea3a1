"""One thread that generates for all requests: what they ask of it, and what it tells them token by token."""

from __future__ import annotations

import threading
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from foveate.errors import FoveateError
from foveate.serve.choice import Chooser, Sampling, likeliest, log_probabilities
from foveate.serve.errors import ApiError
from foveate.serve.writer import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CLOSING = "this server is shutting down"


@dataclass(frozen=True)
class Token:
    """A token written or read; ``log_prob`` is None where nothing comes before it."""

    id: int
    log_prob: float | None = None
    likeliest: Sequence[tuple[int, float]] = ()


@dataclass
class Event:
    """News of one answer. ``finish`` (``stop`` or ``length``) or ``error`` is in its last one."""

    prompt: int  # which of the request's prompts
    number: int  # which of its answers
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    read: list[Token] | None = None  # the prompt's, where they were to be scored
    finish: str | None = None
    error: ApiError | None = None


@dataclass
class Job:
    """A prompt of at least one id, to be continued in ``answers`` ways.

    ``deliver`` is called from the engine's thread, with events of this job and of others that share it.
    ``log_probs``: tokens come with theirs, and with so many of the likeliest; ``score``: so do the prompt's.
    """

    prompt: list[int]
    sampling: Sampling
    deliver: Callable[[list[Event]], None]
    max_tokens: int
    place: int = 0
    answers: int = 1
    stops: Sequence[str] = ()
    log_probs: int | None = None
    score: bool = False
    cancelled: bool = False
    begun: int = 0  # answers


class Answer:
    """One answer while it is written."""

    def __init__(self, job: Job, number: int, engine: Engine) -> None:
        self.job, self.number = job, number
        self.ids = list(job.prompt)
        self.room = job.max_tokens
        self.chooser = Chooser(job.sampling, job.prompt, engine.vocabulary, number)
        self.writer = Writer(engine.tokenizer, job.prompt, job.stops)
        self.ends = engine.ends
        self.done = False

    @property
    def over(self) -> bool:
        return self.done or self.job.cancelled

    def event(self, **news: Any) -> Event:
        return Event(self.job.place, self.number, **news)

    def write(self, token: int, logits_V: np.ndarray) -> Event:
        """Go on by ``token``, chosen by ``logits_V``."""
        self.chooser.accept(token)
        self.ids.append(token)
        self.room -= 1
        event = self.event(tokens=[self._told(token, logits_V)])
        if token in self.ends:
            event.finish = "stop"
        else:
            event.text = self.writer.push(token)
            if self.writer.stopped:
                event.finish = "stop"
            elif not self.room:
                event.finish = "length"
        if event.finish:
            event.text += self.writer.end()
            self.done = True
        return event

    def _told(self, token: int, logits_V: np.ndarray) -> Token:
        if self.job.log_probs is None:
            return Token(token)
        log_probs_V = log_probabilities(logits_V)
        return Token(token, float(log_probs_V[token]), likeliest(log_probs_V, self.job.log_probs))


class Engine(ABC):
    """Generates in a thread of its own from ``start`` to ``close``, or wherever ``work`` is called.

    Args:
        context: tokens that a prompt and its answer may have.
        batch: answers written at once.
        queue: requests that may wait for their turn.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        context: int,
        batch: int = 16,
        queue: int = 128,
    ) -> None:
        self.model: Any = model
        self.tokenizer = tokenizer
        self.context, self.batch, self.queue = context, batch, queue
        self.vocabulary: int = model.config.get_text_config().vocab_size
        self.ends = _ends(model, tokenizer)
        self._arrived: deque[Job] = deque()
        self._news = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
            self._thread.start()

    def close(self, wait: float | None = None) -> None:
        """End every answer at its next token, and take no more; ``wait`` so many seconds for the thread."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        if self._thread is not None and wait is not None:
            self._thread.join(wait)

    def interrupt(self) -> None:
        """As ``close``, from a signal handler, which may not wait for a lock."""
        self._closed = True

    def submit(self, jobs: Sequence[Job]) -> None:
        """Have ``jobs``, all of one request, answered.

        Raises:
            ApiError: too many requests wait already, or the server is shutting down.
        """
        with self._news:
            if self._closed:
                raise ApiError(503, CLOSING)
            if len(self._arrived) >= self.queue:
                raise ApiError(429, f"{len(self._arrived)} requests wait already; try again later", code="queue_full")
            self._arrived.extend(jobs)
            self._news.notify_all()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Their answers end at the next token, and nobody is told."""
        for job in jobs:
            job.cancelled = True
        with self._news:
            self._arrived = deque(job for job in self._arrived if not job.cancelled)
            self._news.notify_all()

    def _run(self) -> None:
        while not self._closed:
            with self._news:
                while not (self._closed or self._arrived or self.busy):
                    self._news.wait(1.0)
            if not self._closed:
                self.work()
        self._end_all()

    def _end_all(self) -> None:
        error = ApiError(503, CLOSING)
        jobs = {id(job): job for job in (*self.unfinished(), *self._arrived)}.values()
        self._arrived.clear()
        for job in jobs:
            tell(job, [Event(job.place, number, error=error) for number in range(job.answers)])

    def _next_job(self) -> Job | None:
        """The one that has waited longest."""
        with self._news:
            return self._arrived.popleft() if self._arrived else None

    @property
    def waiting(self) -> int:
        return len(self._arrived)

    @property
    @abstractmethod
    def writing(self) -> int:
        """Answers that are being written."""

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether there is work besides the jobs that have arrived."""

    @abstractmethod
    def work(self) -> None:
        """Do a little of what is to be done: about a token of every answer."""

    @abstractmethod
    def unfinished(self) -> list[Job]:
        """Those begun."""


def tell(job: Job, events: list[Event]) -> None:
    if not job.cancelled and events:
        job.deliver(events)


def tell_all(told: Sequence[tuple[Job, Event]]) -> None:
    """Each receiver once, whatever the number of its jobs."""
    by_receiver: dict[Callable[[list[Event]], None], list[Event]] = {}
    for job, event in told:
        if not job.cancelled:
            by_receiver.setdefault(job.deliver, []).append(event)
    for deliver, events in by_receiver.items():
        deliver(events)


def failure(error: BaseException) -> ApiError:
    """What a request is told that failed here."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, FoveateError):
        return ApiError(500, str(error))
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
        return ApiError(503, "out of memory; ask for less, or later", code="out_of_memory")
    traceback.print_exception(error)
    return ApiError(500, f"internal error: {type(error).__name__}")


def score_prompt(logits_TV: torch.Tensor, targets: Sequence[int], alternatives: int) -> list[Token]:
    """What the model gave each of ``targets``, by the logits before it."""
    log_probs_TV = torch.log_softmax(logits_TV.float(), -1)
    chosen = log_probs_TV.gather(1, torch.tensor(targets, device=log_probs_TV.device)[:, None])[:, 0].tolist()
    values, ids = log_probs_TV.topk(min(alternatives, log_probs_TV.shape[1]), -1)
    best = [list(zip(*pair, strict=True)) for pair in zip(ids.tolist(), values.tolist(), strict=True)]
    return [Token(*told) for told in zip(targets, chosen, best, strict=True)]


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """The ids that end a text, for the model or its tokenizer."""
    ends = model.generation_config.eos_token_id
    given = [*(ends if isinstance(ends, list | tuple) else [ends]), tokenizer.eos_token_id]
    return {int(end) for end in given if end is not None}
