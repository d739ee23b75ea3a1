"""Rows of several documents: by whichever convention, each gives what it gives alone, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DataCollatorWithFlattening

from foveate import FoveateForCausalLM
from foveate.errors import FoveateError
from hf.models import make_ids, make_model

LENGTHS = [[7, 1, 16, 3], [20, 4, 2, 1]]  # of the documents of two rows


def positions(lengths: list[int]) -> Tensor:
    return torch.cat([torch.arange(n) for n in lengths])


def numbers(lengths: list[int], first: int = 0) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(lengths)) + first, torch.tensor(lengths))


def offsets() -> Tensor:
    every = torch.tensor([n for lengths in LENGTHS for n in lengths])
    return torch.nn.functional.pad(every.cumsum(0), (1, 0)).int()


CONVENTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "position_ids": lambda: {"position_ids": torch.stack([positions(row) for row in LENGTHS])},
    "cu_seq_lens": lambda: {"cu_seq_lens_q": offsets(), "cu_seq_lens_k": offsets(), "max_length_q": 20},
    "seq_idx": lambda: {"seq_idx": torch.stack([numbers(row) for row in LENGTHS]).int()},
    "mask": lambda: {"attention_mask": torch.stack([numbers(row, 1) for row in LENGTHS])},
    "all": lambda: {
        "position_ids": torch.stack([positions(row) for row in LENGTHS]),
        "cu_seq_lens_q": offsets(),
        "seq_idx": torch.stack([numbers(row, 5) for row in LENGTHS]).int(),
    },
}  # fmt: skip


def alone(model: Any, ids: Tensor) -> Tensor:
    """The slow reference: each document in a call of its own."""
    rows = []
    for row, lengths in zip(ids, LENGTHS, strict=True):
        rows.append(torch.cat([model(part[None]).logits[0] for part in row.split(lengths)]))
    return torch.stack(rows)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_each_document_gives_what_it_gives_alone(model: FoveateForCausalLM, convention: str) -> None:
    ids = make_ids(2, 27)
    with torch.no_grad():
        out = model(ids, **CONVENTIONS[convention]())
        torch.testing.assert_close(out.logits, alone(model, ids), atol=1e-10, rtol=0)
        assert (model(ids).logits - out.logits).abs().max() > 1e-3
    assert out.cache is None


def test_gradients_are_those_of_each_document_alone(model: FoveateForCausalLM) -> None:
    ids = make_ids(2, 27)
    model.zero_grad()
    model(ids, labels=ids, position_ids=CONVENTIONS["position_ids"]()["position_ids"], use_cache=False).loss.backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    losses, tokens = [], 0
    for row, lengths in zip(ids, LENGTHS, strict=True):
        for part in row.split(lengths):
            scores = model(part[None], use_cache=False).logits[0, :-1].float()
            losses.append(cross_entropy(scores, part[1:], reduction="sum"))
            tokens += len(part) - 1
    (torch.stack(losses).sum() / tokens).backward()
    for name, gradient in packed.items():
        expected = dict(model.named_parameters())[name].grad
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)  # the loss is in fp32
    model.zero_grad()


def test_padding_among_documents(model: FoveateForCausalLM) -> None:
    rows, width = [[5, 9], [3]], 17
    ids, mask = torch.zeros(2, width, dtype=torch.long), torch.zeros(2, width, dtype=torch.long)
    texts = [[make_ids(n, seed=n) for n in row] for row in rows]
    for at, (row, start) in enumerate(zip(texts, (2, 0), strict=True)):
        for number, text in enumerate(row, 1):
            ids[at, start : start + len(text)], mask[at, start : start + len(text)] = text, number
            start += len(text)
    where = (mask.cumsum(1) - 1).clamp(min=0) * 0
    for at, row in enumerate(rows):
        where[at, mask[at] > 0] = positions(row)
    with torch.no_grad():
        for inputs in ({"attention_mask": mask}, {"attention_mask": (mask > 0).long(), "position_ids": where}):
            logits = model(ids, **inputs).logits
            for at, row in enumerate(texts):
                got = logits[at][mask[at] > 0].split([len(text) for text in row])
                for text, piece in zip(row, got, strict=True):
                    torch.testing.assert_close(piece, model(text[None]).logits[0], atol=1e-10, rtol=0)


def test_what_transformers_collator_makes_is_read(model: FoveateForCausalLM) -> None:
    texts = [make_ids(n, seed=n) for n in (6, 11, 1, 9)]
    features = [{"input_ids": text.tolist(), "labels": text.tolist()} for text in texts]
    for more in ({}, {"return_flash_attn_kwargs": True, "return_seq_idx": True}):
        batch = DataCollatorWithFlattening(return_tensors="pt", **more)(features)
        with torch.no_grad():
            out = model(**batch)
            expected = torch.cat([model(text[None]).logits[0] for text in texts])
        torch.testing.assert_close(out.logits[0], expected, atol=1e-10, rtol=0)


def test_one_document_is_a_row_like_any_other() -> None:
    model, ids = make_model("hourglass"), make_ids(2, 9)
    with torch.no_grad():
        expected = model(ids).logits
        one = {"seq_idx": torch.zeros(2, 9).int(), "cu_seq_lens_q": torch.tensor([0, 9, 18])}
        out = model(ids, **one)
    assert torch.equal(out.logits, expected)
    assert out.cache.seen == 9


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"position_ids": torch.tensor([[0, 1, 0, 1, 3, 4]])}, "position_ids do not count up"),
        ({"seq_idx": torch.tensor([[0, 0, 1, 1, 0, 0]])}, "seq_idx: the numbers of documents fall"),
        ({"attention_mask": torch.tensor([[1, 1, 2, 2, 1, 1]])}, "attention_mask: the numbers of documents fall"),
        ({"seq_idx": torch.zeros(1, 5).int()}, "seq_idx has shape"),
        ({"cu_seq_lens_q": torch.tensor([0, 3, 5])}, "cu_seq_lens_q is .* must rise from 0 to 6"),
        ({"cu_seq_lens_q": torch.tensor([0, 4, 3, 6])}, "cu_seq_lens_q is"),
        ({"cu_seq_lens_q": torch.tensor([0, 3, 6]), "max_length_q": 2}, "max_length_q is 2"),
        ({"max_length_k": 4}, "max_length_k says nothing without cu_seq_lens_k"),
        (
            {"cu_seq_lens_q": torch.tensor([0, 3, 6]), "seq_idx": torch.tensor([[0, 0, 1, 1, 1, 1]])},
            "disagree about where documents begin",
        ),
        ({"seq_idx": torch.tensor([[0, 0, 1, 1, 1, 1]]), "use_cache": True}, "use_cache: several documents"),
        ({"seq_idx": torch.tensor([[0, 0, 1, 1, 1, 1]]), "output_hidden_states": True}, "output_hidden_states"),
    ],
)
def test_what_cannot_be_documents_is_refused(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(FoveateError, match=message) as caught:
        make_model("hourglass")(make_ids(1, 6), **inputs)
    assert "\n" not in str(caught.value)


def test_documents_do_not_follow_a_cache() -> None:
    model = make_model("hourglass")
    cache = model.read(make_ids(1, 8), model.make_cache())
    for inputs in ({"seq_idx": torch.tensor([[0, 1]])}, {"attention_mask": torch.tensor([[1, 2]])}):
        with pytest.raises(FoveateError, match="cannot follow the 8 columns"):
            model(make_ids(1, 2), past_key_values=cache, **inputs)
    with pytest.raises(FoveateError, match="use_cache: several documents"):
        model(make_ids(1, 2), past_key_values=model.make_cache(), seq_idx=torch.tensor([[0, 1]]))
