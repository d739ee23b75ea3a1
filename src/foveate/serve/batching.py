"""Answers of many requests in one batch: rows come and go while the others are written, each as it would be alone.

A row's prompt is read by itself, in blocks, between the steps of the others; the row then waits, fewer steps than the
coarsest stride, until its phase is that of the batch (see ``foveate.hf.phases``), and joins the cache.

**Equal requests get equal texts, whatever the load.** A product of matrices gives a row other last bits beside other
rows. So where a token is not certain (``Chooser.decide``) the row's text is read again alone, from the last whole block
on, and that decides: one time in some hundred to thousand tokens. In half precision rounding is too coarse for this;
there answers with a seed are written without neighbours.

Shape legend: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveate.hf.cache import FoveateCache
from foveate.hf.phases import coarsest_stride
from foveate.serve.engine import Answer, Engine, Event, Job, Token, failure, score_prompt, tell, tell_all

BLOCK = 512  # tokens of a prompt read at once
TOLERANCE = 1e-4  # of fp32 logits, relative to the largest: far above what neighbours change (see test_batching)


class Row(Answer):
    """An answer and what its model remembers.

    ``cache`` has read all but the last of ``ids`` and is the row's own until it joins the batch. ``whole`` has read
    ``whole_blocks`` blocks of them, as one reads them alone; rows of one prompt share it.
    """

    cache: FoveateCache | None = None
    whole: FoveateCache | None = None
    whole_blocks: int = 0


class Reading:
    """A prompt while it is read."""

    def __init__(self, job: Job, cache: FoveateCache) -> None:
        self.job, self.cache = job, cache
        self.done = 0
        self.whole: FoveateCache | None = None
        self.whole_blocks = 0
        self.scores: list[Token] = [Token(job.prompt[0])]

    @property
    def finished(self) -> bool:
        return self.done >= len(self.job.prompt) - 1


class BatchingEngine(Engine):
    """For models of ours."""

    def __init__(self, model: Any, tokenizer: Any, **limits: int) -> None:
        super().__init__(model, tokenizer, **limits)
        self.exact = model.dtype in (torch.float32, torch.float64)
        self.stride = coarsest_stride(model.config.spec)
        self.reading: Reading | None = None  # the prompt being read, or whose answers wait for room
        self.joining: list[Row] = []
        self.lone: list[Row] = []
        self.rows: list[Row] = []  # of the batch
        self.cache: FoveateCache | None = None  # theirs
        self.read_again = 0  # tokens that were not certain
        self.written = 0

    @property
    def busy(self) -> bool:
        return bool(self.reading or self.joining or self.lone or self.rows)

    @property
    def writing(self) -> int:
        return len(self.rows) + len(self.joining) + len(self.lone)

    def unfinished(self) -> list[Job]:
        jobs = [self.reading.job] if self.reading else []
        return jobs + [row.job for row in (*self.joining, *self.lone, *self.rows) if not row.over]

    @torch.inference_mode()
    def work(self) -> None:
        self._drop_cancelled()
        self._read()
        self._join()
        self._step()
        for row in self.lone:
            self._step_alone(row)
        self.lone = [row for row in self.lone if not row.over]

    def _drop_cancelled(self) -> None:
        if self.reading is not None and self.reading.job.cancelled:
            self.reading = None
        self.joining = [row for row in self.joining if not row.over]
        self.lone = [row for row in self.lone if not row.over]
        self._keep([not row.over for row in self.rows])

    def _keep(self, stay: list[bool]) -> None:
        if all(stay):
            return
        self.rows = [row for row, stays in zip(self.rows, stay, strict=True) if stays]
        if self.rows:
            assert self.cache is not None
            self.cache.batch_select_indices(torch.tensor(stay))
        else:
            self.cache = None

    # prompts

    def _read(self) -> None:
        """A block of the prompts that wait, and the rows of those that are read, as far as there is room."""
        left = BLOCK
        while left > 0:
            if self.reading is None:
                job = self._next_job() if self._room() else None
                if job is None:
                    return
                self.reading = Reading(job, self.model.make_cache(1))
            try:
                if not self.reading.finished:
                    left -= max(self._read_block(self.reading), 1)
                if not self.reading.finished or not self._begin_rows(self.reading):
                    return
            except Exception as error:  # this request's alone
                job, told = self.reading.job, failure(error)
                tell(job, [Event(job.place, number, error=told) for number in range(job.begun, job.answers)])
            self.reading = None

    def _room(self) -> int:
        return self.batch - self.writing

    def _read_block(self, reading: Reading) -> int:
        prompt, start = reading.job.prompt, reading.done
        end = min(start + BLOCK, len(prompt) - 1)
        logits_TV = self._logits(prompt[start:end], reading.cache, keep=0 if reading.job.score else 1)
        if reading.job.score:
            alternatives = reading.job.log_probs or 0
            reading.scores += score_prompt(logits_TV, prompt[start + 1 : end + 1], alternatives)
        reading.done = end
        remembers = self.exact and reading.job.sampling.repeatable and reading.job.max_tokens
        if remembers and end % BLOCK == 0 and len(prompt) - 1 - end < BLOCK:  # the last whole one
            reading.whole, reading.whole_blocks = copy.deepcopy(reading.cache), end // BLOCK
        return end - start

    def _begin_rows(self, reading: Reading) -> bool:
        """Whether all answers of the prompt are begun."""
        job = reading.job
        if job.score and not job.begun:
            tell(job, [Event(job.place, number, read=reading.scores) for number in range(job.answers)])
        if not job.max_tokens:
            tell(job, [Event(job.place, number, finish="length") for number in range(job.answers)])
            return True
        while job.begun < job.answers and self._room() > 0:
            row = Row(job, job.begun, self)
            job.begun += 1
            row.cache = reading.cache if job.begun == job.answers else copy.deepcopy(reading.cache)
            row.whole, row.whole_blocks = reading.whole, reading.whole_blocks
            alone = not self.exact and job.sampling.seed is not None
            (self.lone if alone else self.joining).append(row)
        return job.begun == job.answers

    # steps

    def _join(self) -> None:
        if not self.joining:
            return
        phase = len((self.rows or self.joining)[0].ids) % self.stride
        ready = [row for row in self.joining if len(row.ids) % self.stride == phase]
        self.joining = [row for row in self.joining if len(row.ids) % self.stride != phase]
        for row in ready:
            assert row.cache is not None
            if self.cache is None:
                self.cache = row.cache
            else:
                self.cache.append_rows(row.cache)
            row.cache = None
            self.rows.append(row)

    def _step(self) -> None:
        if not self.rows:
            return
        rows = self.rows
        try:
            assert self.cache is not None
            ids_B1 = torch.tensor([[row.ids[-1]] for row in rows], device=self.model.device)
            logits_B1V = self.model(ids_B1, past_key_values=self.cache, use_cache=True).logits
            logits_BV = logits_B1V[:, -1].float().cpu().numpy()
        except Exception as error:  # the cache is half written
            self.rows, self.cache = [], None
            told = failure(error)
            tell_all([(row.job, row.event(error=told)) for row in rows])
            return
        tell_all([(row.job, self._go_on(row, logits_V)) for row, logits_V in zip(rows, logits_BV, strict=True)])
        self._keep([not row.over for row in rows])

    def _step_alone(self, row: Row) -> None:
        try:
            assert row.cache is not None
            logits_V = self._logits(row.ids[-1:], row.cache, keep=1)[-1].float().cpu().numpy()
            event = self._go_on(row, logits_V)
        except Exception as error:
            row.done, event = True, row.event(error=failure(error))
        tell(row.job, [event])

    def _go_on(self, row: Row, logits_V: np.ndarray) -> Event:
        careful = self.exact and row.job.sampling.repeatable
        self.written += 1
        try:
            tolerance = TOLERANCE * max(1.0, float(np.abs(logits_V).max())) if careful else 0.0
            token = row.chooser.decide(logits_V, tolerance)
            if token is None:
                self.read_again += 1
                logits_V = self._alone(row)
                token = row.chooser.decide(logits_V)
            assert token is not None
            return row.write(token, logits_V)
        except Exception as error:
            row.done = True
            return row.event(error=failure(error))

    def _alone(self, row: Row) -> np.ndarray:
        """The logits after ``row.ids`` as nothing but these ids decides them to the bit: read alone, by blocks."""
        blocks = (len(row.ids) - 1) // BLOCK
        if row.whole_blocks < blocks:
            cache = self.model.make_cache(1) if row.whole is None else copy.deepcopy(row.whole)
            for block in range(row.whole_blocks, blocks):
                self._logits(row.ids[block * BLOCK : (block + 1) * BLOCK], cache, keep=1)
            row.whole, row.whole_blocks = cache, blocks
        cache = self.model.make_cache(1) if row.whole is None else copy.deepcopy(row.whole)
        return self._logits(row.ids[blocks * BLOCK :], cache, keep=1)[-1].float().cpu().numpy()

    def _logits(self, ids: list[int], cache: FoveateCache, *, keep: int) -> Tensor:
        """[T, V] after each of ``ids``, or after the last ``keep``."""
        ids_1T = torch.tensor([ids], device=self.model.device)
        logits: Tensor = self.model(ids_1T, past_key_values=cache, use_cache=True, logits_to_keep=keep).logits[0]
        return logits
