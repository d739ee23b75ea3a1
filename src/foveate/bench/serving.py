"""How fast a server answers streams at once, and one after another: the same requests, through HTTP, in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from foveate.bench.clients import clients
from foveate.bench.peers import contender
from foveate.errors import FoveateError
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
    weight_bytes: int
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
    """The models of ``given`` one by one; each server runs in a thread, its clients are another process."""
    from foveate.serve import build_app, build_engine, served
    from foveate.serve.server import CONNECTIONS

    if streams >= CONNECTIONS:
        raise FoveateError(f"streams: {streams:,} is too many; a server takes fewer than {CONNECTIONS:,} at once")
    for name, each in given.items():
        contestant = contender(each)
        decoder = contestant.engine(contestant.model, 1, contestant.spec)  # its sizes
        model, vocabulary = decoder.model, decoder.vocab_size
        limits = {"context": 4 * (prompt + tokens), "batch": streams, "queue": streams}
        engine = build_engine(model, word_tokenizer(vocabulary), **limits)
        bodies = _requests(streams, prompt, tokens, vocabulary)
        together, apart = [], []
        with served(build_app(engine, name="model"), engine) as address, clients(address) as asking:
            asking.ask(bodies[:2], at_once=True)  # warms up
            for _ in range(repeats):
                together.append(asking.ask(bodies, at_once=True))
                apart.append(asking.ask(bodies, at_once=False))
        for turn in (*together, *apart):
            if turn.tokens != [tokens] * streams:
                raise FoveateError(f"{name}: answers of {turn.tokens} tokens instead of {tokens}; nothing is measured")
        fast, slow = ([streams * tokens / turn.seconds for turn in turns] for turns in (together, apart))
        ratio = ratio_by_turn(fast, slow)
        yield ServeSpeed(
            name=name,
            walk=contestant.walk,
            streams=streams,
            prompt=prompt,
            tokens=tokens,
            dtype="int8" if decoder.rounded else decoder.dtype,
            weight_bytes=decoder.weight_bytes,
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


def _requests(streams: int, prompt: int, tokens: int, vocabulary: int) -> list[dict[str, object]]:
    """Prompts of lengths around ``prompt``, no two alike; none ends before ``tokens``."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(max(prompt // 2, 1), prompt + prompt // 2 + 1, streams)
    asked = {
        "max_tokens": tokens,
        "logit_bias": {"0": -100},  # of the end of the text
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return [{"prompt": draw.integers(1, vocabulary, int(length)).tolist(), **asked} for length in lengths]
