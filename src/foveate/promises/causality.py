"""No output depends on a later token.

Shape legend: T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foveate.promises.promise import Case, Comparison, Promise
from foveate.promises.reading import Call, Values, make_rows, read, together
from foveate.promises.subject import Subject


def _cuts(length: int) -> Sequence[int]:
    """How many tokens stay as they are: a few, the shortest and the longest among them."""
    return sorted({1, 2, length // 4, length // 2, 3 * length // 4, length - 2, length - 1} & set(range(1, length)))


def _replaced(subject: Subject, case: Case) -> Comparison:
    kept = case.detail
    row, other = make_rows(subject, [case.length] * 2, case.seed)
    different = torch.where(other == row, other.roll(1), other)
    changed = torch.cat((row[:kept], different[kept:]))
    counted = torch.arange(kept, device=row.device)
    return Comparison(
        expected=lambda: read(subject, [together([row], counted)]),
        actual=lambda: read(subject, [together([changed], counted)]),
        input=f"{case.length} tokens, replaced from place {kept} on: {row.tolist()} and {changed.tolist()}",
    )


def _reach(subject: Subject, row: Tensor, place: int) -> Values:
    """The gradient of the logits at ``place`` with respect to every later token's vector, in shares of the largest."""
    leaves: list[Tensor] = []

    def replace(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()  # which a model may write into

    embedding = subject.embedding()
    assert embedding is not None
    hook = embedding.register_forward_hook(replace)
    try:
        with torch.enable_grad():
            logits = read(subject, [together([row])])["row 0"][place].float()
            weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)
            (grad_1TD,) = torch.autograd.grad((logits * weights).sum(), leaves[:1])
    finally:
        hook.remove()
    reach_T = grad_1TD[0].abs().float().amax(-1)
    return {"reach": reach_T[place + 1 :] / reach_T.max().clamp_min(torch.finfo(torch.float32).tiny)}


def _gradient(subject: Subject, case: Case) -> Comparison:
    place = case.detail - 1
    row = make_rows(subject, [case.length], case.seed)[0]
    return Comparison(
        expected=lambda: {"reach": torch.zeros(case.length - place - 1)},
        actual=lambda: {"reach": _reach(subject, row, place).pop("reach").cpu()},
        input=f"output {place} of {case.length} tokens: {row.tolist()}",
        followed=_replaced(subject, case),
    )


def _no_gradients(subject: Subject) -> str:
    if subject.embedding() is None:
        return "it has no embedding to differentiate by"
    return "" if any(p.requires_grad for p in subject.model.parameters()) else "its parameters take no gradients"


def _embedded(subject: Subject, case: Case) -> Comparison:
    rows = make_rows(subject, [case.length] * case.rows, case.seed)
    return Comparison(
        expected=lambda: read(subject, [together(rows)]),
        actual=lambda: read(subject, [together(rows)], embed=True),
        input=f"the vectors of {[row.tolist() for row in rows]}",
    )


def _takes_embeddings(subject: Subject) -> str:
    return "" if "inputs_embeds" in subject.takes and subject.embedding() is not None else "it takes no inputs_embeds"


def _again(subject: Subject, case: Case) -> Comparison:
    row, other = make_rows(subject, [case.length] * 2, case.seed)
    columns = (torch.arange(case.length, device=row.device),)

    def once() -> Values:
        return read(subject, [Call(ids=row[None], columns=columns)])

    def after_another() -> Values:
        read(subject, [Call(ids=other[None], columns=columns, names=(1,))])
        return once()

    return Comparison(
        expected=once,
        actual=after_another,
        input=f"{row.tolist()}, read before and after {other.tolist()}",
    )


CAUSAL = Promise(
    name="causal",
    group="reading",
    says="replacing later tokens leaves all earlier logits as they are",
    compare=_replaced,
    details=_cuts,
)
CAUSAL_GRADIENT = Promise(
    name="causal-gradient",
    group="reading",
    says="the gradient of a logit with respect to any later token is zero",
    compare=_gradient,
    lacking=_no_gradients,
    details=lambda length: _cuts(length)[:: max(len(_cuts(length)) // 3, 1)],
    measure="reach",
    quick=False,
)
EMBEDS = Promise(
    name="inputs-embeds",
    group="reading",
    says="the vectors of tokens give what the tokens give",
    compare=_embedded,
    lacking=_takes_embeddings,
    shortest=1,
)
DETERMINISTIC = Promise(
    name="deterministic",
    group="reading",
    says="the same text gives the same bits again, also after another text",
    compare=_again,
    shortest=1,
    exact=True,
    finer=False,
)
