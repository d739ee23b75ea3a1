"""Text from a model, piece by piece as it is decoded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers.generation.streamers import BaseStreamer

from foveate.data.encode import encode_documents
from foveate.errors import FoveateError
from foveate.hf.stream import stream
from foveate.scoring import check_ids, position_limit, prefix_id

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_TOKENS = 200
LONG_PROMPT = 100_000  # characters from which on a prompt is encoded as documents are, quickly and as plain text
CONTEXT_TO_DECODE = 8  # tokens of the prompt that decide how the first new one is written, with or without a space


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
    on_text: Callable[[str], Any] = lambda piece: None,
    on_read: Callable[[int, int], Any] = lambda tokens, total: None,
) -> Sample:
    """Continue ``prompt``, read as the beginning of a document, until the model ends the text.

    Args:
        tokens: at most so many new ones; by default 200, or fewer where the model's positions end sooner.
        greedy: always the likeliest token; otherwise drawn at ``temperature``, from the ``top_k`` likeliest, or from
            the likeliest that make up ``top_p`` of the probability.
        seed: the same seed gives the same text on the same machine.
        on_text: called with each new piece of text as soon as its characters are whole.
        on_read: called with the prompt tokens just read and all there are, by models that read in chunks.

    Raises:
        FoveateError: an empty or too long prompt, or options out of range.
    """
    ids = encode_prompt(model, tokenizer, prompt)
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
    pieces = _Pieces(tokenizer, on_text)
    room = _room(model, len(ids), tokens)
    input_ids = torch.tensor([ids], device=model.device)
    if hasattr(model, "read"):
        return _stream(model, input_ids, pieces, room, options, on_read)
    began = time.perf_counter()
    generate: Any = model.generate  # Any: transformers' stubs take it for a module's buffer
    output = generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        max_new_tokens=room,
        pad_token_id=tokenizer.pad_token_id,
        streamer=pieces,
        **options,
    )
    return Sample(text=pieces.text, tokens=output.shape[1] - len(ids), seconds=time.perf_counter() - began)


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


def encode_prompt(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """The prompt's ids after the mark that begins a document, as in training and evaluation."""
    if not prompt:
        raise FoveateError("the prompt is empty; write for example --prompt 'Once upon a time'")
    if len(prompt) > LONG_PROMPT:
        (_, encoded) = next(iter(encode_documents(tokenizer, [prompt])))
        ids = encoded.tolist()
    else:
        ids = tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
    ids = [prefix_id(tokenizer), *ids]
    check_ids(ids, "the prompt", model)
    return ids


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
    """Turns new tokens into text; holds back what may be the beginning of a character, and drops it if none comes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, on_text: Callable[[str], Any]) -> None:
        self.tokenizer = tokenizer
        self.on_text = on_text
        self.text = ""
        self.ids: list[int] = []
        self.context = self.shown = 0  # a piece is what self.ids[context:] has more than self.ids[context:shown]

    def put(self, value: torch.Tensor) -> None:
        new = value.flatten().tolist()
        if not self.ids:  # generate shows the prompt first
            self.ids = new[-CONTEXT_TO_DECODE:]
            self.shown = len(self.ids)
            return
        self.ids += new
        before, now = self._decode(self.ids[self.context : self.shown]), self._decode(self.ids[self.context :])
        if now.endswith("\ufffd") or len(now) <= len(before):
            return
        self.context, self.shown = self.shown, len(self.ids)
        self.text += now[len(before) :]
        self.on_text(now[len(before) :])

    def end(self) -> None:
        pass

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
