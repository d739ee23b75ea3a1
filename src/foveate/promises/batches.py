"""A row of a batch gives what it gives alone, whatever stands beside it, before it and after it."""

from __future__ import annotations

import torch

from foveate.promises.promise import Case, Comparison, Promise
from foveate.promises.reading import Call, Values, make_rows, padded, read, together
from foveate.promises.subject import Subject


def _beside_others(subject: Subject, case: Case) -> Comparison:
    rows = make_rows(subject, [case.length] * case.rows, case.seed)
    counted = torch.arange(case.length, device=subject.device)
    first = Call(ids=torch.stack(rows), columns=(counted, *[counted[:0]] * (case.rows - 1)))
    return Comparison(
        expected=lambda: read(subject, [together(rows[:1])]),
        actual=lambda: read(subject, [first]),
        input=f"row 0 of {[row.tolist() for row in rows]}, alone and in the batch",
    )


def _in_another_order(subject: Subject, case: Case) -> Comparison:
    rows = make_rows(subject, [case.length] * case.rows, case.seed)
    counted = torch.arange(case.length, device=subject.device)
    none = counted[:0]

    def turned() -> Values:
        names = tuple(range(case.rows))[::-1]
        call = Call(ids=torch.stack(rows[::-1]), columns=(*[none] * (case.rows - 1), counted), names=names)
        return read(subject, [call])

    first = Call(ids=torch.stack(rows), columns=(counted, *[none] * (case.rows - 1)))
    return Comparison(
        expected=lambda: read(subject, [first]),
        actual=turned,
        input=f"row 0 of {[row.tolist() for row in rows]}, first and last in the batch",
    )


def _padded(side: str) -> object:
    def compare(subject: Subject, case: Case) -> Comparison:
        row = make_rows(subject, [case.length], case.seed)[0]
        return Comparison(
            expected=lambda: read(subject, [together([row])]),
            actual=lambda: read(subject, [padded(subject, [row], side, case.length + case.detail)]),
            input=f"{row.tolist()} with {case.detail} columns of padding on the {side}",
        )

    return compare


def _takes_mask(subject: Subject) -> str:
    return "" if "attention_mask" in subject.takes else "it takes no attention_mask"


ALONE = Promise(
    name="row-alone",
    group="batches",
    says="a row of a batch gives what it gives alone",
    compare=_beside_others,
    rows=(2, 3),
    shortest=1,
)
ORDER = Promise(
    name="batch-order",
    group="batches",
    says="the order of a batch's rows changes nothing",
    compare=_in_another_order,
    rows=(2, 3),
    shortest=1,
)
LEFT, RIGHT = (
    Promise(
        name=f"{side}-padding",
        group="batches",
        says=f"padding on the {side} changes nothing (mask passed, and positions as generate makes them)",
        compare=_padded(side),  # type: ignore[arg-type]
        lacking=_takes_mask,
        details=lambda length: (1, 3, length),
        shortest=1,
    )
    for side in ("left", "right")
)
