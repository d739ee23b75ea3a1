"""Tasks of lm-eval, the harness that published scores come from, on any model that ``load`` reads."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.errors import FoveateError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def run_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    *,
    context: int,
    include_path: str | Path | None = None,
    batch: int = 1,
    few_shot: int | None = None,
    limit: int | None = None,
) -> dict[str, dict[str, float]]:
    """The metrics of each task, by name.

    Args:
        context: tokens of a window, lm-eval's ``max_length``.
        include_path: a folder of task files (.yaml); lm-eval's own are known too.
        few_shot: examples shown before each question; by default as many as the task says.
        limit: score only so many documents of each task.

    Raises:
        FoveateError: lm-eval is not installed, a task is unknown, or its data cannot be had.
    """
    _check_installed()
    if include_path is not None and not Path(include_path).is_dir():
        raise FoveateError(f"--include-path: there is no folder {include_path}")
    with _quiet():
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        manager = _task_manager(tasks, include_path)
        harness = HFLM(pretrained=model, tokenizer=tokenizer, max_length=context, batch_size=batch)
        try:
            result = simple_evaluate(
                harness,
                tasks=list(tasks),
                task_manager=manager,
                num_fewshot=few_shot,
                limit=limit,
                bootstrap_iters=0,
                log_samples=False,
            )
        except (OSError, ValueError) as error:  # data that is missing, unreachable or of another form
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            raise FoveateError(f"--tasks {','.join(tasks)}: {first}") from error
    assert result is not None
    return {task: dict(_metrics(scores.items())) for task, scores in result["results"].items()}


def _check_installed() -> None:
    import importlib.util

    if importlib.util.find_spec("lm_eval") is None:
        raise FoveateError("--tasks needs one more package: pip install 'foveate[eval]'")


def _task_manager(tasks: Sequence[str], include_path: str | Path | None) -> Any:
    from lm_eval.tasks import TaskManager

    if include_path is not None:  # looking through lm-eval's thousands takes seconds
        manager = TaskManager(include_path=str(include_path), include_defaults=False)
        if set(tasks) <= set(manager.all_tasks):
            return manager
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    unknown = sorted(set(tasks) - set(manager.all_tasks))
    if unknown:
        raise FoveateError(f"--tasks: {unknown[0]!r} is not a task; lm-eval ls tasks lists those there are")
    return manager


def _metrics(scores: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, float]]:
    """``("acc,none", 0.5)`` as ``("acc", 0.5)``; a filter other than none stays in the name, errors are left out."""
    for key, value in scores:
        name, _, filter_name = key.partition(",")
        if isinstance(value, int | float) and not name.endswith("_stderr") and name not in ("alias", "sample_len"):
            yield (name if filter_name in ("", "none") else key), float(value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Standard output is for results: what the harness prints goes to standard error, its notes nowhere."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logging.disable(before)
