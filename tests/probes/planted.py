"""Language models whose use of their context is known exactly, and texts that they predict.

Shape legend: B rows, T tokens, L letters, V vocabulary, W tokens of a window.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad

VOCABULARY = 257  # of the byte tokenizer
LETTERS = 23  # a prime number of them, from a: no change of one letter leaves a weighted sum of some as it was
WEIGHTS = torch.arange(1, 21) * 7 % (LETTERS - 1) + 1  # of the last 20 letters, none of them 0
SURE = 0.9


class Planted(nn.Module):
    """Called as a causal language model of transformers is; ``last`` is how many columns of logits it was asked for."""

    last = 0

    def forward(self, input_ids: Tensor, logits_to_keep: int = 0) -> SimpleNamespace:
        self.last = logits_to_keep
        logits = self.log_probabilities((input_ids - ord("a")).clamp(0, LETTERS - 1), input_ids)
        return SimpleNamespace(logits=logits[:, -logits_to_keep:])

    def log_probabilities(self, letters_BT: Tensor, ids_BT: Tensor) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def sure_of(letters_BT: Tensor) -> Tensor:
        """Log-probabilities [B, T, V] of a model that gives one letter the probability ``SURE``."""
        rest = (1 - SURE) / (VOCABULARY - 1)
        of_letter = one_hot(letters_BT + ord("a"), VOCABULARY)
        return torch.where(of_letter == 1, SURE, rest).log()


class LastTwenty(Planted):
    """The next letter is a function of all of the last 20, and of nothing before."""

    def log_probabilities(self, letters_BT: Tensor, ids_BT: Tensor) -> Tensor:
        windows_BTW = pad(letters_BT, (len(WEIGHTS) - 1, 0)).unfold(1, len(WEIGHTS), 1)
        return self.sure_of((windows_BTW * WEIGHTS).sum(2) % LETTERS)


class CopyHundredBack(Planted):
    """The next letter is the one 100 before it, and nothing else matters."""

    def log_probabilities(self, letters_BT: Tensor, ids_BT: Tensor) -> Tensor:
        T = letters_BT.shape[1]
        return self.sure_of(pad(letters_BT, (99, 0))[:, :T])


class BagOfWords(Planted):
    """The next letter has the frequency it had in all that was read, wherever that was."""

    def log_probabilities(self, letters_BT: Tensor, ids_BT: Tensor) -> Tensor:
        counts_BTV = one_hot(ids_BT, VOCABULARY).cumsum(1) + 1
        return (counts_BTV / counts_BTV.sum(2, keepdim=True)).log()


def twenty_texts(count: int, length: int) -> list[str]:
    """What ``LastTwenty`` predicts, from random beginnings."""
    letters = np.random.default_rng(0).integers(LETTERS, size=(count, length))
    weights = WEIGHTS.numpy()
    for t in range(len(weights), length):
        letters[:, t] = letters[:, t - len(weights) : t] @ weights % LETTERS
    return _texts(letters)


def repeating_texts(count: int, length: int) -> list[str]:
    """A hundred random letters over and over, which ``CopyHundredBack`` predicts."""
    period = np.random.default_rng(0).integers(LETTERS, size=(count, 100))
    return _texts(np.tile(period, -(-length // 100))[:, :length])


def topical_texts(count: int, length: int) -> list[str]:
    """Random letters, a few of which make up most of a text, which ``BagOfWords`` finds out."""
    draw = np.random.default_rng(0)
    return _texts(np.stack([draw.choice(LETTERS, length, p=draw.dirichlet([0.1] * LETTERS)) for _ in range(count)]))


def _texts(letters: np.ndarray) -> list[str]:
    return [bytes((row + ord("a")).astype(np.uint8)).decode() for row in letters]
