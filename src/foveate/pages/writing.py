"""Write: text as it is decoded, beside what that costs: tokens per second, bytes of state, layers that ran."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from foveate.data.decode import TextDecoder
from foveate.data.prompt import encode_prompt
from foveate.errors import FoveateError
from foveate.hf.private import CACHE
from foveate.hf.stream import stream
from foveate.pages.fields import Fields
from foveate.pages.shelf import Reader, Shelf
from foveate.pages.work import Job, Work
from foveate.scoring import check_ids

MOST_TOKENS = 2000
TOLD_EVERY = 0.05  # seconds: a page draws no faster


def write(shelf: Shelf, fields: Fields) -> Work:
    """What a request asks for: ``model``, ``prompt``, ``tokens``, ``temperature`` (0: always the likeliest), ``seed``.

    Drawn as ``foveate sample`` draws it.
    """
    name, prompt = fields.name("model"), fields.text("prompt", "")
    tokens = fields.whole("tokens", 1, MOST_TOKENS, default=100)
    temperature = fields.number("temperature", 0, 100, default=0.8)
    seed = fields.whole("seed", 0, 2**32 - 1, default=0)
    fields.end()

    def work(job: Job) -> dict[str, Any]:
        reader = shelf.reader(name)
        ids = encode_prompt(reader.tokenizer, prompt)
        check_ids(ids, "the prompt", reader.model)
        if reader.limit is not None and len(ids) + tokens > reader.limit:
            raise FoveateError(
                f"tokens: {tokens:,} after a prompt of {len(ids):,} are more than the {reader.limit:,} positions of "
                f"{name}"
            )
        torch.manual_seed(seed)
        job.tell(prompt_tokens=len(ids))
        decoder = TextDecoder(reader.tokenizer, ids)
        writes = _ours if reader.spec is not None else _another
        began, first, told, waiting = time.perf_counter(), 0.0, 0.0, ""
        count = state = 0
        for count, (token, state) in enumerate(writes(reader, ids, tokens, temperature), 1):
            now = time.perf_counter()
            first = first or now - began
            waiting += decoder.push(token)
            if job.stopped or now - told > TOLD_EVERY:
                job.tell(piece=waiting, **_told(len(ids), count, now - began - first, state))
                told, waiting = now, ""
        seconds = time.perf_counter() - began - first
        job.tell(piece=waiting, **_told(len(ids), count, seconds, state))
        return {"text": decoder.text, "read_s": round(first, 4), **_told(len(ids), count, seconds, state)}

    return work


def _told(prompt: int, count: int, seconds: float, state: int) -> dict[str, Any]:
    # the first token's time is that of reading the prompt
    speed = (count - 1) / seconds if count > 1 and seconds > 0 else None
    return {"tokens": count, "position": prompt + count - 1, "tokens_per_s": speed, "state_bytes": state}


def _ours(reader: Reader, ids: list[int], tokens: int, temperature: float) -> Iterator[tuple[int, int]]:
    model: Any = reader.model
    cache = model.make_cache(1)
    given = torch.tensor([ids], device=model.device)
    options: dict[str, Any] = {"do_sample": temperature > 0, "temperature": temperature or 1.0}
    for token in stream(model, given, max_new_tokens=tokens, cache=cache, **options):
        yield token, cache.nbytes


def _another(reader: Reader, ids: list[int], tokens: int, temperature: float) -> Iterator[tuple[int, int]]:
    model: Any = reader.model
    ends = model.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    given, past = torch.tensor([ids], device=model.device), None
    for _ in range(tokens):
        with torch.inference_mode():
            output = model(input_ids=given, use_cache=True, **{CACHE: past})
            past, logits_1V = getattr(output, CACHE), output.logits[:, -1].float()
            if temperature > 0:
                given = torch.multinomial((logits_1V / temperature).softmax(-1), 1)
            else:
                given = logits_1V.argmax(-1, keepdim=True)
        token = int(given)
        yield token, state_bytes(past)
        if token in ends:
            return


def state_bytes(past: Any) -> int:
    """Bytes of the tensors that a cache of transformers holds."""
    layers = getattr(past, "layers", None) or []
    tensors = [value for layer in layers for value in vars(layer).values() if isinstance(value, Tensor)]
    return sum(tensor.nbytes for tensor in tensors)
