"""``foveate.check``: which promises a model keeps."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from foveate.errors import FoveateError
from foveate.loading import quiet_transformers
from foveate.promises.judge import Judge
from foveate.promises.promise import Promise
from foveate.promises.registry import BY_NAME, PROMISES
from foveate.promises.report import Finding, Report
from foveate.promises.subject import Subject

LENGTH, QUICK_LENGTH, MOST = 24, 12, 1024
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "attention_window_size", "chunk_size")
FEW = 64  # tokens of a window that is worth a text longer than it


def check(
    model: nn.Module,
    tokenizer: Any = None,
    *,
    promises: Sequence[str] | None = None,
    quick: bool = False,
    length: int | None = None,
    seed: int = 0,
    name: str | None = None,
    on_finding: Callable[[Finding], None] | None = None,
) -> Report:
    """Check that a causal language model keeps its promises: causal, the same with a cache, with padding, and so on.

    Args:
        model: of the Hugging Face kind, or any module whose ``forward`` turns ids [B, T] into logits [B, T, V]. It is
            put into evaluation mode meanwhile; its weights stay as they are.
        tokenizer: its padding id is used.
        promises: names of those to check; default: all.
        quick: the most important ones alone, on shorter texts.
        length: tokens of the longest text; default: 24, or more where the model says it has a short window or blocks.
        seed: of the random texts.
        on_finding: told each finding as it is made.

    Raises:
        FoveateError: it is no causal language model, or a promise or number is unknown.
    """
    chosen = _choose(promises, quick)
    subject = Subject(model, tokenizer)
    if length is not None and length < 2:
        raise FoveateError(f"length is {length}; a text to check with has at least 2 tokens")
    start = time.perf_counter()
    with _prepared(model):
        subject.try_out()
        judge = Judge(subject, length=length or default_length(subject, quick=quick), seed=seed)
        findings = []
        for promise in chosen:
            findings.append(judge.judge(promise))
            if on_finding is not None:
                on_finding(findings[-1])
    return Report(
        model=name or type(model).__name__,
        kind=type(model).__name__,
        dtype=str(subject.dtype).removeprefix("torch."),
        device=str(subject.device),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seconds=time.perf_counter() - start,
        findings=tuple(findings),
    )


def _choose(names: Sequence[str] | None, quick: bool) -> list[Promise]:
    if names is None:
        return [promise for promise in PROMISES if promise.quick or not quick]
    for name in names:
        if name not in BY_NAME:
            raise FoveateError(f"there is no promise {name!r}; choose of {', '.join(BY_NAME)}")
    return [promise for promise in PROMISES if promise.name in names]


def default_length(subject: Subject, *, quick: bool) -> int:
    """Tokens to check with: enough to pass the end of a short window, and two units of a coarse layer."""
    length = QUICK_LENGTH if quick else LENGTH
    text = getattr(subject.config, "get_text_config", lambda: None)()
    for config in (subject.config, text):
        for window in (getattr(config, name, None) for name in WINDOWS):
            if isinstance(window, int) and length <= window + 4 <= FEW:
                length = window + 4
        strides = getattr(config, "hidden_state_strides", None)
        if isinstance(strides, list):
            length = max(length, min(2 * max(strides) + max(strides) // 2 + 5, MOST))
    return length


@contextlib.contextmanager
def _prepared(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, without gradients, and without what others say in passing."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
