"""Documents packed into one row, told apart by positions that begin again: what trainers call packing."""

from __future__ import annotations

import torch

from foveate.promises.promise import Case, Comparison, Promise
from foveate.promises.reading import Call, Values, make_rows, read, together
from foveate.promises.subject import Subject


def _packed(subject: Subject, case: Case) -> Comparison:
    first = max(case.length // 2, 1)
    documents = make_rows(subject, [first, case.length - first], case.seed)
    device = subject.device
    positions = torch.cat([torch.arange(len(document), device=device) for document in documents])
    second = torch.arange(first, case.length, device=device)
    call = Call(ids=torch.cat(documents)[None], columns=(second,), positions=positions[None])

    def alone() -> Values:
        return read(subject, [together(documents[1:])])

    return Comparison(
        expected=alone,
        actual=lambda: read(subject, [call]),
        input=f"{documents[1].tolist()} after {documents[0].tolist()}, with position_ids {positions.tolist()}",
    )


def _takes_positions(subject: Subject) -> str:
    return "" if "position_ids" in subject.takes else "it takes no position_ids"


PACKED = Promise(
    name="packed",
    group="batches",
    says="a document packed behind another, with positions that begin again, gives what it gives alone",
    compare=_packed,
    lacking=_takes_positions,
)
