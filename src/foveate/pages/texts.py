"""A visitor's text as tokens, each with the characters it stands for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foveate.data.prompt import check_text, document_mark
from foveate.errors import FoveateError
from foveate.pages.shelf import Reader
from foveate.probes.items import find_tokens
from foveate.scoring import check_ids


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Tokens of a text: ids, and token i is ``text[starts[i] : ends[i]]``; ``mark`` is what documents begin after."""

    text: str
    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    mark: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def pieces(self) -> list[str]:
        """What each token adds to the text: nothing where it stands for more bytes of the same character."""
        begins = np.maximum(self.starts, np.concatenate([[0], self.ends[:-1]]))
        return [self.text[start:end] for start, end in zip(begins.tolist(), self.ends.tolist(), strict=True)]

    @property
    def after_mark(self) -> list[int]:
        return [self.mark, *self.ids.tolist()]


def encode(reader: Reader, text: str, most: int) -> Encoded:
    """
    Raises:
        FoveateError: no text, more than ``most`` tokens, or a tokenizer that is not the model's.
    """
    check_text(text)
    found = find_tokens(reader.tokenizer)(text)
    if not len(found.ids):
        raise FoveateError("text: there is none; write or paste some")
    if len(found.ids) > most:
        raise FoveateError(f"text: it has {len(found.ids):,} tokens, and {most:,} are the most here; take a part of it")
    mark = document_mark(reader.tokenizer)
    check_ids([mark, *found.ids], "the text", reader.model)
    return Encoded(text=text, ids=found.ids, starts=found.starts, ends=found.ends, mark=mark)
