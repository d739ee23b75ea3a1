"""What is done to a whole model and must not change what it computes: saving, resizing, checkpointing, compiling."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from typing import Any

import torch

from foveate.promises.caches import gradients
from foveate.promises.promise import Case, Comparison, Promise
from foveate.promises.reading import Values, make_rows, read, together
from foveate.promises.subject import Subject

MORE_IDS = 7
# Follows what compiling captures and how it makes gradients and views of it, without minutes of generating code.
COMPILER = "aot_eager"


def _saves(subject: Subject) -> str:
    return "" if hasattr(subject.model, "save_pretrained") else "it has no save_pretrained"


def _of_another(subject: Subject, case: Case, make: Any, what: str, *, watchable: bool = True) -> Comparison:
    rows = make_rows(subject, [case.length] * case.rows, case.seed)
    made: list[Subject] = []

    def actual() -> Values:
        if not made:
            made.append(make())
        return {name: logits[:, : subject.vocab_size] for name, logits in read(made[0], [together(rows)]).items()}

    def expected() -> Values:
        return {name: logits[:, : subject.vocab_size] for name, logits in read(subject, [together(rows)]).items()}

    return Comparison(
        expected=expected,
        actual=actual,
        input=f"{[row.tolist() for row in rows]}, {what}",
        watchable=watchable,
    )


def _saved(subject: Subject, case: Case) -> Comparison:
    def load() -> Subject:
        model: Any = subject.model
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            loaded = type(model).from_pretrained(folder, dtype=subject.dtype, local_files_only=True)
        return Subject(loaded.to(subject.device).eval())

    return _of_another(subject, case, load, "by the model that was saved and loaded")


def _resizes(subject: Subject) -> str:
    if not hasattr(subject.model, "resize_token_embeddings"):
        return "it has no resize_token_embeddings"
    return "" if subject.embedding() is not None else "it names no input embeddings"


def _resized(subject: Subject, case: Case) -> Comparison:
    def grow() -> Subject:
        model: Any = copy.deepcopy(subject.model)
        model.resize_token_embeddings(subject.vocab_size + MORE_IDS, mean_resizing=False)
        grown = Subject(model)
        ids = torch.full((1, 2), subject.vocab_size + MORE_IDS - 1, device=subject.device)
        width = grown.logits(grown.call(ids), 2).shape[-1]  # the new ids can be read, and predicted
        if width != subject.vocab_size + MORE_IDS:
            raise RuntimeError(f"{width} logits for a vocabulary of {subject.vocab_size + MORE_IDS}")
        return grown

    return _of_another(subject, case, grow, f"by the model with {MORE_IDS} more ids")


def _compiled(subject: Subject, case: Case) -> Comparison:
    def compile_it() -> Subject:
        torch._dynamo.reset()
        compiled = copy.copy(subject)
        compiled.model = torch.compile(subject.model, backend=COMPILER, dynamic=False)  # type: ignore[assignment]
        return compiled

    return _of_another(subject, case, compile_it, f"compiled ({COMPILER})", watchable=False)


def _checkpoints(subject: Subject) -> str:
    if not getattr(subject.model, "supports_gradient_checkpointing", False):
        return "it supports no gradient checkpointing"
    return "" if any(p.requires_grad for p in subject.model.parameters()) else "its parameters take no gradients"


@contextlib.contextmanager
def _training(subject: Subject, checkpointing: bool) -> Iterator[None]:
    model: Any = subject.model
    modes = {module: module.training for module in model.modules()}
    model.train()
    which = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # its name from 5.23 on
    if checkpointing:
        getattr(model, f"{which}_checkpointing_enable")()
    try:
        with torch.random.fork_rng(devices=[subject.device] if subject.device.type == "cuda" else []):
            torch.manual_seed(0)  # of dropout
            yield
    finally:
        if checkpointing:
            getattr(model, f"{which}_checkpointing_disable")()
        for module, mode in modes.items():
            module.training = mode


def _checkpointed(subject: Subject, case: Case) -> Comparison:
    rows = make_rows(subject, [case.length] * case.rows, case.seed)

    def train(checkpointing: bool) -> Values:
        with _training(subject, checkpointing):
            return gradients(subject, lambda: read(subject, [together(rows)]))

    def forward(checkpointing: bool) -> Values:
        with _training(subject, checkpointing):
            return read(subject, [together(rows)])

    return Comparison(
        expected=lambda: train(False),
        actual=lambda: train(True),
        input=f"{[row.tolist() for row in rows]}, in training",
        followed=Comparison(expected=lambda: forward(False), actual=lambda: forward(True), input=""),
    )


SAVED = Promise(
    name="saved",
    group="the whole model",
    says="saving and loading changes nothing",
    compare=_saved,
    lacking=_saves,
    shortest=1,
)
RESIZED = Promise(
    name="resized",
    group="the whole model",
    says="more token ids change no logit of the old ones, can be read, and have logits",
    compare=_resized,
    lacking=_resizes,
    shortest=1,
    quick=False,
)
COMPILED = Promise(
    name="compiled",
    group="the whole model",
    says=f"torch.compile changes nothing (as its {COMPILER} backend captures the model)",
    compare=_compiled,
    quick=False,
)
CHECKPOINTED = Promise(
    name="checkpointed",
    group="training",
    says="gradient checkpointing changes no gradient",
    compare=_checkpointed,
    lacking=_checkpoints,
    measure="gradients",
    quick=False,
)
