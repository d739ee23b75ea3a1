"""Text from a model, piece by piece as it is decoded."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from foveate.data.decode import TextDecoder
from foveate.data.prompt import encode_prompt
from foveate.errors import FoveateError
from foveate.hf.stream import stream
from foveate.scoring import check_ids, position_limit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_TOKENS = 200


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a model wrote after a prompt; ``tokens`` are new ones, an end-of-text mark included."""

    text: str
    tokens: int
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    tokens: int | None = None,
    greedy: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    special_tokens: bool = False,
    on_text: Callable[[str], Any] = lambda piece: None,
    on_read: Callable[[int, int], Any] = lambda tokens, total: None,
) -> Sample:
    """Continue ``prompt``, read as the beginning of a document, until the model ends the text.

    How it is drawn follows from the arguments alone: of the model's generation_config only the ids that end a text are
    used.

    Args:
        tokens: at most so many new ones; by default 200, or fewer where the model's positions end sooner.
        greedy: always the likeliest token; otherwise drawn at ``temperature``, from the ``top_k`` likeliest, or from
            the likeliest that make up ``top_p`` of the probability.
        seed: the same seed gives the same text on the same machine.
        special_tokens: let control tokens that the prompt spells out be tokens; otherwise they are text.
        on_text: called with each new piece of text as soon as its characters are whole.
        on_read: called with the prompt tokens just read and all there are, by models that read in chunks.

    Raises:
        FoveateError: a prompt that is too long, or options out of range.
    """
    ids = encode_prompt(tokenizer, prompt, special_tokens=special_tokens)
    check_ids(ids, "the prompt", model)
    if not greedy and not 0 < temperature <= 100:
        raise FoveateError(f"--temperature: {temperature:g} must be above 0 and at most 100; for none, write --greedy")
    if top_k is not None and top_k < 1:
        raise FoveateError(f"--top-k: {top_k} must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise FoveateError(f"--top-p: {top_p:g} must be above 0 and at most 1")
    options: dict[str, Any] = {"do_sample": False}
    if not greedy:
        options = {"do_sample": True, "temperature": temperature, "top_k": top_k or 0, "top_p": top_p or 1.0}
    if seed is not None:
        torch.manual_seed(seed)
    pieces = _Pieces(tokenizer, ids, on_text)
    room = _room(model, len(ids), tokens)
    input_ids = torch.tensor([ids], device=model.device)
    if hasattr(model, "read"):
        return _stream(model, input_ids, pieces, room, options, on_read)
    began = time.perf_counter()
    generate: Any = model.generate  # Any: transformers' stubs take it for a module's buffer
    with only_ends(model):
        output = generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=room,
            pad_token_id=tokenizer.pad_token_id,
            streamer=pieces,
            **options,
        )
    return Sample(text=pieces.text, tokens=output.shape[1] - len(ids), seconds=time.perf_counter() - began)


@contextlib.contextmanager
def only_ends(model: PreTrainedModel) -> Iterator[None]:
    """Without what else the model's generation_config asks for: ``generate`` fills in from it whatever is not given."""
    own: Any = model.generation_config
    model.generation_config = GenerationConfig(eos_token_id=own.eos_token_id)
    try:
        yield
    finally:
        model.generation_config = own


def _stream(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    pieces: _Pieces,
    room: int,
    options: dict[str, Any],
    on_read: Callable[[int, int], Any],
) -> Sample:
    total = input_ids.shape[1]
    pieces.put(input_ids)
    began, count = time.perf_counter(), 0
    tokens = stream(model, input_ids, max_new_tokens=room, on_read=lambda read: on_read(read, total), **options)
    for count, token in enumerate(tokens, 1):
        if count == 1:
            began = time.perf_counter()
        pieces.put(torch.tensor([token]))
    # the first token's time is that of reading the prompt
    seconds = (time.perf_counter() - began) * count / max(count - 1, 1)
    return Sample(text=pieces.text, tokens=count, seconds=seconds)


def _room(model: PreTrainedModel, prompt: int, tokens: int | None) -> int:
    limit = position_limit(model)
    if limit is None:
        return tokens or DEFAULT_TOKENS
    if prompt >= limit:
        raise FoveateError(f"the prompt has {prompt:,} tokens, the model positions for {limit:,}; shorten the prompt")
    if tokens is None:
        return min(DEFAULT_TOKENS, limit - prompt)
    if prompt + tokens > limit:
        raise FoveateError(
            f"--tokens: {tokens:,} after a prompt of {prompt:,} are more than the model's {limit:,} positions; "
            f"write {limit - prompt:,} or fewer"
        )
    return tokens


class _Pieces(BaseStreamer):
    """Hands generated tokens to a ``TextDecoder``, and what it gives to ``on_text``."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: list[int], on_text: Callable[[str], Any]) -> None:
        self.decoder = TextDecoder(tokenizer, prompt)
        self.on_text = on_text
        self.prompt_shown = False

    @property
    def text(self) -> str:
        return self.decoder.text

    def put(self, value: torch.Tensor) -> None:
        if not self.prompt_shown:  # generate shows the prompt first
            self.prompt_shown = True
            return
        for token in value.flatten().tolist():
            if new := self.decoder.push(token):
                self.on_text(new)

    def end(self) -> None:
        pass
