"""Settings that do not go together, each refused in one line; they are those of ``TrainSettings``, which asks here."""

from __future__ import annotations

from typing import Any

from foveate import values
from foveate.errors import FoveateError

TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")


def check_together(settings: Any) -> None:
    """Raise a ``FoveateError`` for settings of which one makes no sense without, or beside, another."""
    _check_start(settings)
    _check_teacher(settings)
    if settings.optimizer == "muon" and settings.parallel == "fsdp":
        raise FoveateError("--optimizer muon works on whole matrices; with it, write --parallel ddp")
    if settings.sample_every and settings.parallel == "fsdp":
        raise FoveateError("--sample-every: with --parallel fsdp no process has the whole model; leave it out")
    for tracker in settings.report_to:
        if tracker not in TRACKERS:
            raise FoveateError(f"--report-to: {tracker!r} is unknown; choose from {', '.join(TRACKERS)}")


def _check_start(settings: Any) -> None:
    if settings.from_ is not None and settings.tokenizer != settings.from_:
        raise FoveateError(f"--tokenizer: the model of --from {settings.from_} has its own; leave it out")
    read_stages(settings)
    if settings.lora is None:
        if not settings.lora_merge:
            raise FoveateError("--no-lora-merge is about adapters; give their rank with --lora")
        return
    if settings.from_ is None:
        raise FoveateError("--lora adapts a model that is there; name it with --from DIR")
    if settings.freeze or settings.stages:
        raise FoveateError("--lora trains its adapters alone; leave --freeze and --stages out")
    if settings.parallel == "fsdp":
        raise FoveateError("--lora: adapters are too small to be shared out; write --parallel ddp")


def _check_teacher(settings: Any) -> None:
    if settings.teacher is None:
        for name in ("distill", "temperature", "teacher_top"):
            if getattr(settings, name) is not None:
                raise FoveateError(f"--{name.replace('_', '-')} is about a teacher; name one with --teacher DIR")
    elif settings.teacher_top is not None and settings.stream:
        raise FoveateError("--teacher-top keeps what was said of each sequence, and --stream has none to find again")


def read_stages(settings: Any) -> list[tuple[int, tuple[str, ...]]]:
    """The last step of each stage, with the patterns of what trains until then; after the last stage all does.

    Raises:
        FoveateError: a stage that cannot be read; together they are longer than the run.
    """
    stages = []
    tokens = 0
    for stage in settings.stages:
        amount, colon, patterns = stage.partition(":")
        try:
            tokens += values.count(amount)
        except Exception:
            colon = ""
        if not colon or not patterns:
            raise FoveateError(f"--stages: cannot read {stage!r}; write TOKENS:PATTERN, such as 1M:moves")
        stages.append((-(-tokens // settings.tokens_per_step), tuple(patterns.split(","))))
    if tokens > settings.tokens:
        raise FoveateError(f"--stages: together they take {tokens:,} tokens, the run has {settings.tokens:,}")
    return stages
