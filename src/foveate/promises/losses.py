"""The loss is the one that labels ask for: each token predicted from those before it, ignored ones left out."""

from __future__ import annotations

import torch

from foveate.promises.promise import Case, Comparison, Promise
from foveate.promises.reading import Values, make_rows, read, together
from foveate.promises.subject import Subject

IGNORED = -100


def _takes_labels(subject: Subject) -> str:
    return "" if "labels" in subject.takes else "it takes no labels"


def _compared(subject: Subject, case: Case, *, ignoring: bool) -> Comparison:
    rows = torch.stack(make_rows(subject, [case.length] * case.rows, case.seed))
    labels = rows.clone()
    if ignoring:
        labels[:, : case.length // 2] = IGNORED  # a prompt, and the last token
        labels[-1, -1] = IGNORED

    def by_hand() -> Values:
        found = read(subject, [together(list(rows))])
        logits = torch.stack([found[f"row {place}"] for place in range(case.rows)])[:, :-1].float()
        wanted = labels[:, 1:]
        chosen = logits.log_softmax(-1).gather(-1, wanted.clamp_min(0)[..., None])[..., 0]
        return {"loss": -chosen[wanted != IGNORED].mean().view(1)}

    def by_model() -> Values:
        loss = subject.call(rows, labels=labels).loss
        if loss is None:
            raise RuntimeError("its output has no loss though labels were passed")
        return {"loss": loss.float().view(1)}

    return Comparison(
        expected=by_hand,
        actual=by_model,
        input=f"{rows.tolist()} with labels {labels.tolist()}",
        watchable=False,
    )


def _shifted(subject: Subject, case: Case) -> Comparison:
    return _compared(subject, case, ignoring=False)


def _ignored(subject: Subject, case: Case) -> Comparison:
    return _compared(subject, case, ignoring=True)


LABELS = Promise(
    name="labels",
    group="training",
    says="the loss is the mean over tokens, each predicted from those before it",
    compare=_shifted,
    lacking=_takes_labels,
    rows=(1, 2),
    measure="loss",
)
IGNORED_LABELS = Promise(
    name="ignored-labels",
    group="training",
    says="labels of -100 are left out of the loss, and of what it is divided by",
    compare=_ignored,
    lacking=_takes_labels,
    rows=(1, 2),
    shortest=4,
    measure="loss",
)
