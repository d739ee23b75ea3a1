"""What may be done to the context before the boundary, as units of text that are kept whole or moved.

Legend: N sequences, b tokens before the boundary, P permutations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from foveate.data.tokenizer import BYTE_CHARACTERS
from foveate.errors import FoveateError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONDITIONS = ("original", "shuffle", "replace", "truncate")
LARGEST_BLOCK = 1 << 20
# the stand-ins that tokenizers write for white space, and nothing else
SPACES = {"▁": " ", "<0x0A>": "\n", "<0x09>": "\t", "<0x0D>": "\r"} | {
    BYTE_CHARACTERS[ord(space)]: space for space in " \n\t\r"
}
SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]]*\s*$""")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What a shuffle moves without looking inside: ``token``, ``word``, ``sentence``, or ``block`` of ``size`` tokens.

    A word begins where white space does; a sentence begins with the word after a full stop, question or exclamation
    mark. Both go by the tokens alone, so an abbreviation's stop ends a sentence too.
    """

    kind: str = "token"
    size: int = 1

    def __str__(self) -> str:
        return f"block:{self.size}" if self.kind == "block" else self.kind

    @classmethod
    def parse(cls, text: str) -> Unit:
        """Read ``token``, ``word``, ``sentence`` or ``block:K``."""
        if text in ("token", "word", "sentence"):
            return cls(kind=text)
        if (match := re.fullmatch(r"block:([0-9]{1,7})", text)) and 1 <= int(match[1]) <= LARGEST_BLOCK:
            return cls(kind="block", size=int(match[1]))
        raise FoveateError(
            f"--unit: {shown(text)} is unknown; write token, word, sentence or block:K, K tokens to a block"
        )

    def number(self, ids_Nb: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
        """Which unit of its row each token is of: int64 [N, b], rising from 0."""
        places = np.broadcast_to(np.arange(ids_Nb.shape[1]), ids_Nb.shape)
        if self.kind in ("token", "block"):
            return places // self.size
        begins_space, is_space, ends_sentence = _flags(ids_Nb, tokenizer)
        begins_Nb = begins_space
        begins_Nb[:, 1:] &= ~is_space[:, :-1]  # white space in several tokens begins one word
        if self.kind == "sentence":
            # quotes and brackets may stand between the stop and the space, so the end is that of a word's last tokens
            begins_Nb[:, 1:] &= ends_sentence[:, :-1]
        begins_Nb[:, 0] = False
        return begins_Nb.cumsum(1)


def _flags(ids_Nb: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each token [N, b]: does it begin with white space, is it nothing else, does a sentence end with it?"""
    ids, inverse = np.unique(ids_Nb, return_inverse=True)
    pieces = [_plain(piece) for piece in tokenizer.convert_ids_to_tokens(ids.tolist())]
    begins = np.array([piece[:1].isspace() for piece in pieces])
    is_space = np.array([piece.isspace() for piece in pieces])
    ends = np.array([SENTENCE_END.search(piece) is not None for piece in pieces])
    # a closing quote of its own goes with what stands before it
    closes = np.array([bool(re.fullmatch(r"""["'”’)\]]+""", piece)) for piece in pieces])
    shaped = [flag[inverse].reshape(ids_Nb.shape) for flag in (begins, is_space, ends, closes)]
    ends_Nb = shaped[2]
    ends_Nb[:, 1:] |= shaped[3][:, 1:] & ends_Nb[:, :-1]
    return shaped[0], shaped[1], ends_Nb


def _plain(piece: str | None) -> str:
    for stand_in, space in SPACES.items():
        piece = (piece or "").replace(stand_in, space)
    return piece or ""


def permute(ids_Nb: np.ndarray, unit_Nb: np.ndarray, permutations: int, random: np.random.Generator) -> np.ndarray:
    """Each row's units in ``permutations`` random orders, the tokens of a unit in their own: [N, P, b]."""
    N, b = ids_Nb.shape
    rank_NPb = random.random((N, permutations, b))  # of unit u, where column u stands; the rest is not used
    of_token = np.take_along_axis(rank_NPb, np.broadcast_to(unit_Nb[:, None], rank_NPb.shape), 2)
    order = np.argsort(of_token, axis=2, kind="stable")  # equal within a unit, whose tokens so keep their order
    return np.take_along_axis(np.broadcast_to(ids_Nb[:, None], order.shape), order, 2)
