"""Which token comes next: from scores, what a request asked for, and random numbers of its own.

A row's scores differ in their last bits with the rows it happens to be computed beside. A token is *certain* if no such
difference can change it: ``decide`` says None where one could, and the caller computes the scores in a way that no
neighbour touches. Texts then depend on the request alone, whatever the load.

Shape legend: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from foveate.errors import FoveateError

COLDEST = 1e-6  # temperatures below would tell scores apart that differ by rounding alone


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to draw.

    Attributes:
        temperature: 0 takes the likeliest.
        top_k: draw from so many of the likeliest; 0: from all.
        top_p: draw from the likeliest that make up so much of the probability.
        min_p: leave out what is less likely than this times the likeliest.
        presence_penalty: taken from the score of every token written so far.
        frequency_penalty: the same for each time it was written.
        repetition_penalty: divides scores above 0, and multiplies those below, of tokens in the prompt or the answer.
        logit_bias: added to a token's score.
        seed: the same seed gives the same text; None: another one each time.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None

    @property
    def repeatable(self) -> bool:
        """Whether the same request is to give the same text again."""
        return self.seed is not None or self.temperature == 0


class Chooser:
    """Chooses the tokens of one answer, the ``number``-th of its request."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], vocabulary: int, number: int = 0) -> None:
        self.sampling = sampling
        seeds = None if sampling.seed is None else (sampling.seed % (1 << 64), number)
        self.random = np.random.Generator(np.random.PCG64(seeds))
        self._counts_V = np.zeros(vocabulary) if sampling.presence_penalty or sampling.frequency_penalty else None
        self._seen_V: np.ndarray | None = None
        if sampling.repetition_penalty != 1:
            self._seen_V = np.zeros(vocabulary, dtype=bool)
            self._seen_V[list(prompt)] = True
        self._biased = np.array(list(sampling.logit_bias), dtype=np.int64)
        self._bias = np.array(list(sampling.logit_bias.values()), dtype=np.float64)
        self._noise_V: np.ndarray | None = None
        self._cuts = sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0

    def decide(self, logits_V: np.ndarray, tolerance: float = 0.0) -> int | None:
        """The next token; None if logits that differ from these by ``tolerance`` or less could give another.

        Asked again before ``accept``, it uses the same random numbers.

        Raises:
            FoveateError: the model's scores are not numbers.
        """
        scores_V = self._adjusted(logits_V.astype(np.float64))
        highest = scores_V.max()
        if not np.isfinite(highest):  # one that is not a number makes it none
            raise FoveateError(
                "the model's scores are not numbers: its weights are damaged, or too large for its dtype"
            )
        scores_V -= highest
        slack = tolerance * max(self.sampling.repetition_penalty, 1 / self.sampling.repetition_penalty)
        if self.sampling.temperature == 0:
            return _clear_winner(scores_V, 2 * slack)
        temperature = max(self.sampling.temperature, COLDEST)
        scores_V /= temperature
        slack /= temperature
        if self._noise_V is None:  # of Gumbel's distribution: the highest sum is a draw from the softmax
            self._noise_V = -np.log(self.random.standard_exponential(len(scores_V)))
        drawn_V = scores_V + self._noise_V
        if not self._cuts:
            return _clear_winner(drawn_V, 2 * slack)
        token = _clear_winner(np.where(self._kept(scores_V, slack), drawn_V, -np.inf), 2 * slack)
        if token is None or (slack and not self._kept(scores_V, -slack)[token]):
            return None
        return token

    def accept(self, token: int) -> None:
        """It is written: penalties count it, and the next one is drawn anew."""
        self._noise_V = None
        if self._counts_V is not None:
            self._counts_V[token] += 1
        if self._seen_V is not None:
            self._seen_V[token] = True

    def _adjusted(self, logits_V: np.ndarray) -> np.ndarray:
        if self._seen_V is not None:
            penalty = self.sampling.repetition_penalty
            logits_V = np.where(self._seen_V, np.where(logits_V > 0, logits_V / penalty, logits_V * penalty), logits_V)
        if self._counts_V is not None:
            logits_V -= self.sampling.frequency_penalty * self._counts_V
            logits_V -= self.sampling.presence_penalty * (self._counts_V > 0)
        if len(self._biased):
            logits_V[self._biased] += self._bias
        return logits_V

    def _kept(self, scores_V: np.ndarray, slack: float) -> np.ndarray:
        """What may be drawn [V]: with a slack above 0 all that may be in, below 0 only what certainly is."""
        how = self.sampling
        kept_V = np.ones(len(scores_V), dtype=bool)
        if 0 < how.top_k < len(scores_V):
            inside, outside = np.partition(scores_V, (-how.top_k - 1, -how.top_k))[[-how.top_k, -how.top_k - 1]]
            kept_V = scores_V >= inside - 2 * slack if slack >= 0 else scores_V > outside - 2 * slack
        if how.top_p < 1:
            kept_V = kept_V & _nucleus(np.where(kept_V, scores_V, -np.inf), how.top_p, slack)
        if how.min_p > 0:
            kept_V = kept_V & ((scores_V >= np.log(how.min_p) - 2 * slack) | (scores_V == 0))
        return kept_V


def _clear_winner(scores_V: np.ndarray, margin: float) -> int | None:
    """The highest; None if the next is within ``margin``, which is not 0."""
    best = int(scores_V.argmax())
    if margin and len(scores_V) > 1:
        second, first = np.partition(scores_V, -2)[-2:]
        if not first - second > margin:
            return None
    return best


def _nucleus(scores_V: np.ndarray, top_p: float, slack: float) -> np.ndarray:
    """The likeliest that make up ``top_p``: those before which there is less than that."""
    rising_V = np.sort(scores_V)
    mass_V = np.exp(rising_V)
    above_V = np.append(np.cumsum(mass_V[::-1])[::-1] / mass_V.sum(), 0.0)  # of those from a place on
    # those that are higher, or may be
    before_V = above_V[np.searchsorted(rising_V, scores_V + 2 * slack, side="right" if slack >= 0 else "left")]
    if slack < 0:  # it is not before itself
        before_V = before_V - np.exp(scores_V) / mass_V.sum()
    kept_V: np.ndarray = (before_V < top_p + 4 * slack) | (before_V <= 1e-12)
    return kept_V & (scores_V > -np.inf)


def log_probabilities(logits_V: np.ndarray) -> np.ndarray:
    """Of every token under the model itself, before penalties and temperature."""
    logits_V = logits_V.astype(np.float64)
    logits_V = logits_V - logits_V.max()
    result: np.ndarray = logits_V - np.log(np.exp(logits_V).sum())
    return result


def likeliest(log_probs_V: np.ndarray, count: int) -> list[tuple[int, float]]:
    """The ``count`` likeliest tokens with their log probabilities, the likeliest first."""
    count = min(count, len(log_probs_V))
    if not count:
        return []
    top = np.argpartition(log_probs_V, -count)[-count:]
    top = top[np.lexsort((top, -log_probs_V[top]))]
    return [(int(token), float(log_probs_V[token])) for token in top]
