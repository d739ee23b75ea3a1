"""The words that one model gains most over another, each with the place where it gains most.

Legend: V words of a vocabulary, I scored items of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foveate.probes.word_loss import WordLosses

BEFORE_SHOWN, AFTER_SHOWN = 70, 20  # characters


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A word that ``better`` predicts better, and the place (``before``, ``here``, ``after``) where it gains most.

    Nats are those of A less B: above 0 where B is the better one.
    """

    word: str
    train_count: int
    better: str
    count: int
    total_nats: float
    delta_nats: float
    before: str
    here: str
    after: str
    here_nats: float


def largest_gains(
    losses: WordLosses, train_count_V: np.ndarray, names: tuple[str, str], among_V: np.ndarray, top: int
) -> Iterator[Gain]:
    """Of the words ``among_V`` (bool), those whose losses differ most, summed over all occurrences: B's, then A's.

    So a word counts for what it does to the loss of the whole text, be it much in one place or a little in many.
    """
    is_word_I = losses.word >= 0
    word_I = losses.word[is_word_I]
    delta_I = (losses.nats[0] - losses.nats[1])[is_word_I]
    places = np.flatnonzero(is_word_I)
    total_V = np.bincount(word_I, delta_I, len(among_V))
    count_V = np.bincount(word_I, minlength=len(among_V))
    for better, sign in ((names[1], 1), (names[0], -1)):
        gain_V = np.where(among_V, sign * total_V, 0)
        for number in np.argsort(-gain_V, kind="stable")[:top]:
            if gain_V[number] <= 0:
                break
            own = np.flatnonzero(word_I == number)
            best = own[np.argmax(sign * delta_I[own])]
            text = losses.texts[losses.text[places[best]]]
            start, end = losses.start[places[best]], losses.end[places[best]]
            yield Gain(
                word=losses.vocabulary[number],
                train_count=int(train_count_V[number]),
                better=better,
                count=int(count_V[number]),
                total_nats=float(total_V[number]),
                delta_nats=float(total_V[number] / count_V[number]),
                before=_on_one_line(text[max(0, start - BEFORE_SHOWN) : start]),
                here=text[start:end],
                after=_on_one_line(text[end : end + AFTER_SHOWN]),
                here_nats=float(delta_I[best]),
            )


def _on_one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)
