"""Tasks of lm-eval, the harness that published scores come from, on any model that ``load`` reads."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.data.prompt import begin_document, document_mark, encode_text
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
    special_tokens: bool = False,
) -> dict[str, dict[str, float]]:
    """The metrics of each task, by name.

    Args:
        context: tokens of a window, lm-eval's ``max_length``.
        include_path: a folder of task files (.yaml); lm-eval's own are known too.
        few_shot: examples shown before each question; by default as many as the task says.
        limit: score only so many documents of each task.
        special_tokens: let control tokens that the texts spell out be tokens; otherwise they are text.

    Raises:
        FoveateError: lm-eval is not installed, a task is unknown, or its data cannot be had.
    """
    _check_installed()
    if include_path is not None and not Path(include_path).is_dir():
        raise FoveateError(f"--include-path: there is no folder {include_path}")
    with _quiet():
        from lm_eval import simple_evaluate

        manager = _task_manager(tasks, include_path)
        harness = make_harness(model, tokenizer, context=context, batch=batch, special_tokens=special_tokens)
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


def make_harness(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, context: int, batch: int, special_tokens: bool
) -> Any:
    """lm-eval's view of a model, which reads text by the one rule of ``foveate.data.prompt``."""
    import torch
    from lm_eval.models.huggingface import HFLM

    class Harness(HFLM):
        """A request's context begins a document, even an empty one; no text becomes a control token unless asked."""

        def tok_encode(
            self,
            string: str,
            add_special_tokens: bool | None = None,
            left_truncate_len: int | None = None,
            **kwargs: Any,
        ) -> list[int]:
            ids = encode_text(tokenizer, string, special_tokens=special_tokens)
            if add_special_tokens:
                ids = begin_document(tokenizer, ids)
            return ids[-left_truncate_len:] if left_truncate_len else ids

        def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
            before, after = super()._encode_pair(context, continuation)
            return begin_document(tokenizer, before), after

        def tok_batch_encode(
            self,
            strings: list[str],
            padding_side: str = "left",
            left_truncate_len: int | None = None,
            truncation: bool = False,
        ) -> tuple[Any, Any]:
            rows = [self.tok_encode(string, True, left_truncate_len) for string in strings]
            longest = max(map(len, rows))
            padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.prefix_token_id
            ids = torch.full((len(rows), longest), padding)
            mask = torch.zeros_like(ids)
            for number, row in enumerate(rows):
                place = slice(longest - len(row), longest) if padding_side == "left" else slice(len(row))
                ids[number, place], mask[number, place] = torch.tensor(row), 1
            return ids, mask

    return Harness(
        pretrained=model,
        tokenizer=tokenizer,
        max_length=context,
        batch_size=batch,
        prefix_token_id=document_mark(tokenizer),
    )


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
