"""Rows that hold several documents: the conventions by which callers say where each begins, turned into one.

Trainers pack short texts into one row to waste no columns on padding, and tell a model so by positions that start
over, by offsets of the flattened batch (``cu_seq_lens_q``), by a number for each token (``seq_idx``) or by a mask that
numbers documents instead of saying 1. Read as one text, documents would see one another.

Shape legend: B batch rows, T columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from foveate.errors import FoveateError, shown

NAMES = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")
INSTEAD = "leave it out, or give each text a row of its own"


def documents_of(
    given: Mapping[str, Any],
    position_ids: Tensor | None,
    numbered_BT: Tensor | None,
    mask_BT: Tensor | None,
    like: Tensor,
) -> Tensor | None:
    """The number [B, T] of each real token's document in its row, never falling; None if every row is one document.

    Args:
        given: the arguments of ``NAMES`` that there are.
        position_ids: [B, T], of a call that follows nothing; each document begins with 0.
        numbered_BT: a mask that numbers documents.
        mask_BT: 0 is padding.
        like: [B, T] or [B, T, D], the tokens.

    Raises:
        FoveateError: what is given cannot be documents, or not the same ones.
    """
    B, T = like.shape[:2]
    real_BT = torch.ones(B, T, dtype=torch.bool, device=like.device) if mask_BT is None else mask_BT != 0
    found: dict[str, Tensor] = {}
    if position_ids is not None:
        found["position_ids"] = _by_positions(position_ids.to(like.device).expand(B, T), real_BT)
    if numbered_BT is not None:
        found["attention_mask"] = numbered_BT
    if given.get("seq_idx") is not None:
        found["seq_idx"] = _matrix("seq_idx", given["seq_idx"], B, T).to(like.device)
    found |= _by_offsets(given, B, T, like.device)
    ranks = {name: _ranks(name, documents_BT, real_BT) for name, documents_BT in found.items()}
    if not ranks:
        return None
    (first, rank_BT), *others = ranks.items()
    for name, other_BT in others:
        if not torch.equal(rank_BT, other_BT):
            raise FoveateError(f"{first} and {name} disagree about where documents begin; pass one of them")
    return rank_BT if bool((rank_BT > 0).any()) else None


def within_documents(labels: Tensor, documents_BT: Tensor | None, ignored: int) -> Tensor:
    """Labels [B, T] without those of first tokens, which only the document before could predict."""
    if documents_BT is None:
        return labels
    begins_BT = torch.zeros_like(labels, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return labels.masked_fill(begins_BT, ignored)


def _by_positions(positions_BT: Tensor, real_BT: Tensor) -> Tensor:
    index_BT = real_BT.cumsum(1) - 1  # of a real token in its row
    begins_BT = real_BT & (positions_BT == 0)
    start_BT = index_BT.masked_fill(~begins_BT, -1).cummax(1).values
    counts = (start_BT >= 0) & (positions_BT == index_BT - start_BT)
    if not bool((counts | ~real_BT).all()):
        raise FoveateError(
            "position_ids do not count up by one from 0 at the first token of each document: a multi-scale model "
            "counts positions itself; leave position_ids out"
        )
    return begins_BT.cumsum(1)


def _by_offsets(given: Mapping[str, Any], B: int, T: int, device: torch.device) -> dict[str, Tensor]:
    documents = {}
    for letter in "qk":
        name, longest = f"cu_seq_lens_{letter}", given.get(f"max_length_{letter}")
        offsets = given.get(name)
        if offsets is None:
            if longest is not None:
                raise FoveateError(f"max_length_{letter} says nothing without {name}; leave it out or pass both")
            continue
        offsets = torch.as_tensor(offsets, device=device).long()
        if not _are_offsets(offsets, B, T):
            raise FoveateError(
                f"{name} is {shown(offsets.tolist())}; it must rise from 0 to {B * T}, all tokens of the batch, and "
                f"have every row's beginning; {INSTEAD}"
            )
        if longest is not None and int(longest) < int(offsets.diff().max()):
            raise FoveateError(
                f"max_length_{letter} is {int(longest)}, less than the longest document of {name}; {INSTEAD}"
            )
        number = torch.searchsorted(offsets[1:].contiguous(), torch.arange(B * T, device=device), right=True)
        documents[name] = number.view(B, T)
    return documents


def _are_offsets(offsets: Tensor, B: int, T: int) -> bool:
    if offsets.dim() != 1 or len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != B * T:
        return False
    rows = torch.arange(B, device=offsets.device) * T
    return bool((offsets.diff() >= 0).all() and torch.isin(rows, offsets).all())


def _matrix(name: str, value: Any, B: int, T: int) -> Tensor:
    value = torch.as_tensor(value)
    if value.shape != (B, T) or value.is_floating_point():
        raise FoveateError(f"{name} has shape {tuple(value.shape)} and is {value.dtype}; pass whole numbers [{B}, {T}]")
    return value.long()


def _ranks(name: str, documents_BT: Tensor, real_BT: Tensor) -> Tensor:
    """0, 1, 2, … for a row's documents in turn; padding has the number of what is before it."""
    lowest = int(documents_BT.min()) - 1 if documents_BT.numel() else 0
    carried_BT = documents_BT.masked_fill(~real_BT, lowest).cummax(1).values
    if not bool(((carried_BT == documents_BT) | ~real_BT).all()):
        raise FoveateError(f"{name}: the numbers of documents fall along a row; each document must be in one piece")
    changes_BT = torch.zeros_like(carried_BT)
    changes_BT[:, 1:] = (carried_BT[:, 1:] != carried_BT[:, :-1]) & (carried_BT[:, :-1] != lowest)
    return changes_BT.cumsum(1)
