"""The text of one answer as its tokens come: whole characters, up to the first stop sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foveate.data.decode import TextDecoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Writer:
    """Gives out what may be shown; what may be the beginning of a stop sequence waits for the rest.

    Args:
        before: ids of the text that is gone on from.
        stops: sequences, none empty, that end the text and are left out of it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, before: Sequence[int], stops: Sequence[str] = ()) -> None:
        self._decoder = TextDecoder(tokenizer, before)
        self._stops = stops
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that can be shown now that ``token`` was written."""
        text = self._held + self._decoder.push(token)
        found = [place for place in (text.find(stop) for stop in self._stops) if place >= 0]
        if found:
            self._held, self.stopped = "", True
            return text[: min(found)]
        held = max((_begun(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def end(self) -> str:
        """What was held back and turned out to be text."""
        held, self._held = self._held, ""
        return held


def _begun(text: str, stop: str) -> int:
    """Letters at the end of ``text`` with which ``stop`` begins."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
