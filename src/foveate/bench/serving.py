"""How fast a server answers streams at once, and one after another: the same requests, through HTTP, in turn."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from foveate.bench.peers import contender
from foveate.stats import ratio_by_turn, spread


@dataclass(frozen=True, kw_only=True)
class ServeSpeed:
    """One model behind a server.

    Attributes:
        streams: requests at once, each for an answer of ``tokens`` to a prompt of about ``prompt`` tokens.
        together_per_s: tokens per second of all streams at once, median over the repeats; ``apart_per_s`` of the same
            requests one after another.
        ratio: of the one to the other, turn by turn.
        first_ms: until the first token of a stream, median, at once and apart.
    """

    name: str
    walk: str | None
    streams: int
    prompt: int
    tokens: int
    dtype: str
    params: int
    together_per_s: float
    together_low: float
    together_high: float
    apart_per_s: float
    apart_low: float
    apart_high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    first_ms: float
    first_ms_apart: float
    repeats: int
    threads: int
    device: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def time_serving(
    given: Mapping[str, Any], *, streams: int, prompt: int, tokens: int, repeats: int
) -> Iterator[ServeSpeed]:
    """The models of ``given`` one by one; each server runs in a thread, its clients beside it in this process."""
    from foveate.serve import build_app, build_engine, served

    for name, each in given.items():
        model = contender(each).model.eval()
        vocabulary = model.config.get_text_config().vocab_size
        # twice the streams, so that no prompt waits for room
        engine = build_engine(model, word_tokenizer(vocabulary), context=4 * (prompt + tokens), batch=streams)
        with served(build_app(engine, name="model"), engine) as address:
            host, _, port = address.removeprefix("http://").partition(":")
            bodies = _requests(streams, prompt, tokens, vocabulary)
            asyncio.run(_all((host, int(port)), bodies[:2], at_once=True))  # warms up
            together, apart = [], []
            for _ in range(repeats):
                together.append(asyncio.run(_all((host, int(port)), bodies, at_once=True)))
                apart.append(asyncio.run(_all((host, int(port)), bodies, at_once=False)))
        fast, slow = ([turn.tokens / turn.seconds for turn in turns] for turns in (together, apart))
        ratio = ratio_by_turn(fast, slow)
        yield ServeSpeed(
            name=name,
            walk=None if getattr(model.config, "spec", None) is None else str(model.config.spec),
            streams=streams,
            prompt=prompt,
            tokens=tokens,
            dtype=str(model.dtype).removeprefix("torch."),
            params=model.num_parameters(),
            **dict(zip(("together_per_s", "together_low", "together_high"), spread(fast), strict=True)),
            **dict(zip(("apart_per_s", "apart_low", "apart_high"), spread(slow), strict=True)),
            **dict(zip(("ratio", "ratio_low", "ratio_high"), ratio, strict=True)),
            first_ms=float(np.median([first for turn in together for first in turn.first]) * 1000),
            first_ms_apart=float(np.median([first for turn in apart for first in turn.first]) * 1000),
            repeats=repeats,
            threads=torch.get_num_threads(),
            device=str(model.device),
        )


def word_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A word for each of ``size`` ids: every token that random weights choose is text."""
    backend = Tokenizer(models.WordLevel({f"w{token}": token for token in range(size)}, unk_token="w0"))
    backend.decoder = decoders.WordPiece(prefix="")
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="w0", clean_up_tokenization_spaces=False)


def _requests(streams: int, prompt: int, tokens: int, vocabulary: int) -> list[bytes]:
    """Prompts of lengths around ``prompt``, no two alike; none ends before ``tokens``."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(max(prompt // 2, 1), prompt + prompt // 2 + 1, streams)
    bodies = []
    for length in lengths:
        body = {
            "prompt": draw.integers(1, vocabulary, int(length)).tolist(),
            "max_tokens": tokens,
            "logit_bias": {"0": -100},
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        bodies.append(json.dumps(body).encode())
    return bodies


@dataclass
class _Turn:
    tokens: int
    seconds: float
    first: list[float]


async def _all(address: tuple[str, int], bodies: Sequence[bytes], *, at_once: bool) -> _Turn:
    start = time.perf_counter()
    if at_once:
        done = await asyncio.gather(*(_stream(address, body) for body in bodies))
    else:
        done = [await _stream(address, body) for body in bodies]
    seconds = time.perf_counter() - start
    return _Turn(sum(tokens for tokens, _ in done), seconds, [first for _, first in done])


async def _stream(address: tuple[str, int], body: bytes) -> tuple[int, float]:
    """Tokens of one answer, and seconds to its first."""
    start, first, tokens = time.perf_counter(), 0.0, 0
    reader, writer = await asyncio.open_connection(*address)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {address[0]}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    async for line in reader:
        if not line.startswith(b"data: {"):
            continue
        first = first or time.perf_counter() - start
        if b'"choices":[]' in line:
            tokens = json.loads(line.removeprefix(b"data: "))["usage"]["completion_tokens"]
    writer.close()
    await writer.wait_closed()
    return tokens, first
