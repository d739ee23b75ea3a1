"""A document is read once, far text as thumbnails that a question opens; no question sees another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from foveate.data.decode import TextDecoder
from foveate.data.prompt import document_mark, encode_text
from foveate.errors import FoveateError
from foveate.hf.private import CACHE
from foveate.hf.zoom import zoom
from foveate.hf.zoom_cache import ZoomCache
from foveate.scoring import check_ids, position_limit
from foveate.zooming import ZoomPlan

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# who asks looks for one place: twice the keys of the default, every group of 4 scored (docs/zoom.md, needles)
ASKING = ZoomPlan(keep=(None, None, None), opened=93, thumbnails=4)
PIECE = 1024  # tokens read at once
PLACE = "\ue0f2"  # a private-use character: where a chat template puts what the user says


class Reader:
    """A model that zooms, and what it has read of one document.

    Args:
        model: of transformers, with rotary positions; it zooms until ``close``.
        document: its text; with a chat template, the beginning of the user's turn.
        plan: how to zoom, as ``foveate.zoom`` takes it.

    Raises:
        FoveateError: a model that cannot zoom, an empty document, or one longer than the model's positions.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        document: str,
        plan: ZoomPlan | Sequence[ZoomPlan | None] = ASKING,
    ) -> None:
        if not document.strip():
            raise FoveateError("the document is empty")
        self.model: Any = model
        self.tokenizer = tokenizer
        before, self._after = _frame(tokenizer)
        self.ids = before + encode_text(tokenizer, document)
        check_ids(self.ids, "the document", model)
        self._check_room(len(self.ids), "the document")
        self._zoomed = zoom(model, plan)
        self.cache: ZoomCache = self._zoomed.cache()

    def close(self) -> None:
        """The model attends as before."""
        self._zoomed.undo()

    @torch.inference_mode()
    def read(self, on_read: Callable[[int], None] = lambda tokens: None) -> None:
        """Read the document; ``on_read`` is called with the numbers of tokens read."""
        for piece in self._tensor(self.ids).split(PIECE, 1):
            # one token's logits: those of all would be tokens × vocabulary
            self.model(piece, **{CACHE: self.cache}, logits_to_keep=1)
            on_read(piece.shape[1])

    def save(self, path: Path) -> None:
        """Keep what was read, for ``load``."""
        self.cache.save(path, self.model, read=self.ids)

    def load(self, path: Path) -> None:
        """Go on from what ``save`` kept.

        Raises:
            FoveateError: it is of another document, model or settings.
        """
        self.cache = ZoomCache.load(path, self.model, read=self.ids)

    @torch.inference_mode()
    def answer(self, question: str, tokens: int) -> Iterator[str]:
        """The likeliest answer, of at most so many tokens, piece by piece as its characters are whole."""
        ids = encode_text(self.tokenizer, f"\n\n{question}" if self._after else f"\n\nQuestion: {question}\nAnswer:")
        ids += self._after
        check_ids(ids, "the question", self.model)
        self._check_room(len(self.ids) + len(ids) + tokens, "the document with the question and the answer")
        cache = copy.deepcopy(self.cache)  # questions do not see one another
        decoder = TextDecoder(self.tokenizer, ids)
        ends = _ends(self.model)
        for _ in range(tokens):
            logits = self.model(self._tensor(ids), **{CACHE: cache}, logits_to_keep=1).logits
            token = int(logits[0, -1].argmax())
            if token in ends:
                return
            if new := decoder.push(token):
                yield new
            ids = [token]

    def _tensor(self, ids: Sequence[int]) -> torch.Tensor:
        return torch.tensor([list(ids)], device=self.model.device)

    def _check_room(self, tokens: int, what: str) -> None:
        limit = position_limit(self.model)
        if limit is not None and tokens > limit:
            raise FoveateError(f"{what}: {tokens:,} tokens, more than the model's {limit:,} positions")


def _frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The ids before the document, and those after a question: of the chat template, or the document's mark alone."""
    if not tokenizer.chat_template:
        return [document_mark(tokenizer)], []
    turn = [{"role": "user", "content": PLACE}]
    rendered = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    before, place, after = rendered.partition(PLACE)
    if not place or not after.strip() or PLACE in after:
        return [document_mark(tokenizer)], []
    return tuple(encode_text(tokenizer, part, special_tokens=True) for part in (before, after))  # type: ignore[return-value]


def _ends(model: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, list) else {ends} - {None}
