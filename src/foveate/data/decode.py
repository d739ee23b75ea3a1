"""From token ids to text as they come: whole characters, each as soon as it is whole.

Streams, samples and whole answers go through one decoder, so they hold the same text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BROKEN = "\ufffd"  # what tokenizers write for bytes that are no character, or not yet one
UNFINISHED = 3  # bytes of a character that lacks its last one; some tokenizers write a sign for each
CONTEXT = 8  # tokens before that decide how the next one is written, with or without a space
LONGEST = 64  # tokens decoded again for each new one while no character ends where a token does


class TextDecoder:
    """Turns new tokens into text. What may be the beginning of a character waits for the rest, and is dropped at last.

    Args:
        before: ids of the text that the tokens go on from.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, before: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.text = ""
        self._ids = list(before)[-CONTEXT:]  # what is decoded with each new token
        self._given = len(self._decode())  # characters of it that were given out, or stood before
        self._fresh = len(self._ids)  # the first of them that came since a character last ended where a token does

    def push(self, token: int) -> str:
        """The characters that ``token`` makes whole: a word, a part of one, sometimes none."""
        self._ids.append(int(token))
        whole = self._decode()
        new = whole[self._given :]
        self._given = max(self._given, len(whole))
        if self._ends_whole:
            self._forget(self._fresh)  # what came with the last character decides how the next one is written
        elif len(self._ids) > LONGEST:
            self._forget(-CONTEXT)
        self.text += new
        return new

    def _forget(self, before: int) -> None:
        self._ids = self._ids[before:]
        self._given = len(self._decode())
        self._fresh = len(self._ids)

    def _decode(self) -> str:
        """The text of the ids held, without what may be the beginning of a character at its end."""
        text = str(self.tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        broken = len(text) - len(text.rstrip(BROKEN))
        self._ends_whole = not broken
        return text[: len(text) - min(broken, UNFINISHED)]


def decode_text(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int], before: Sequence[int] = ()) -> str:
    """The text of ``ids`` that follow ``before``: what a ``TextDecoder`` gives for them one by one."""
    decoder = TextDecoder(tokenizer, before)
    for token in ids:
        decoder.push(token)
    return decoder.text
