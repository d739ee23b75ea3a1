"""``foveate eval``: how well a model predicts a text."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from foveate.data.reading import add_reading_arguments, reading_of
from foveate.errors import FoveateError
from foveate.values import count, length

if TYPE_CHECKING:
    from collections.abc import Iterable

    from foveate.train.documents import Document

HELP = "score a model on text or on tasks: bits per byte, perplexity, accuracy"
EXAMPLES = """examples:
  foveate eval runs/mine --data held-out.jsonl.xz
  foveate eval runs/mine                                on what the run itself held out
  foveate eval path/to/any/causal-lm --data book.txt --context 1024 --json
  foveate eval runs/mine --tasks arc_easy,lambada_openai      tasks of lm-eval, which it downloads
  foveate eval runs/mine --tasks held_out --include-path examples/lm_eval

The windows are those of lm-eval's rolling log-likelihood: each document by itself, after an end-of-text mark, in
windows of --context tokens that do not overlap, the last one moved back to be full."""

DEFAULT_CONTEXT = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN", help="a run directory, or any Hugging Face causal language model's")
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        metavar="PATH",
        help="files, folders, globs, hf:NAME, or books (default: what the run held out)",
    )
    parser.add_argument(
        "--special-tokens",
        action="store_true",
        help="control tokens that the text spells out, such as <|endoftext|>, are tokens (default: text)",
    )
    add_reading_arguments(parser)
    parser.add_argument(
        "--context",
        type=length,
        metavar="N",
        help=f"tokens of a window (default: the run's, else {DEFAULT_CONTEXT} or the model's positions)",
    )
    parser.add_argument("--batch", type=count, metavar="N", help="windows computed at once (default: by memory)")
    parser.add_argument("--tokens", type=count, metavar="N", help="stop at so many tokens, for a quick look")
    parser.add_argument("--dtype", default="fp32", metavar="T", help="fp32, bf16, or int8 on a CPU (default: fp32)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--json", action="store_true", help="JSON on standard output: one object, or one for each task")
    tasks = parser.add_argument_group("tasks of lm-eval (pip install 'foveate[eval]')")
    tasks.add_argument("--tasks", metavar="T[,T]", help="names of tasks or groups of tasks")
    tasks.add_argument("--include-path", metavar="DIR", help="a folder of task files of your own")
    tasks.add_argument("--few-shot", type=int, metavar="N", help="examples before each question (default: the task's)")
    tasks.add_argument("--limit", type=count, metavar="N", help="documents of each task (default: all)")


def run(args: argparse.Namespace) -> None:
    from foveate.loading.decoding import load_for_decoding
    from foveate.scoring import check_context
    from foveate.train.evaluate import evaluate
    from foveate.train.settings import settings_of

    settings = settings_of(args.model)
    if args.tasks is not None and not _task_names(args.tasks):
        raise FoveateError("--tasks: no task is named; write for example --tasks arc_easy,lambada_openai")
    if args.tasks and args.data:
        raise FoveateError("--tasks and --data exclude one another: tasks name their own data")
    if not args.tasks and not args.data and settings is None:
        raise FoveateError(f"--data is missing: {args.model} is not a run directory that could know what it held out")
    model, tokenizer = load_for_decoding(args.model, device=args.device, dtype=args.dtype)
    context = args.context or (settings.context if settings else None)
    if context is None:
        context = min(DEFAULT_CONTEXT, getattr(model.config, "max_position_embeddings", None) or DEFAULT_CONTEXT)
    check_context(model, context)
    if args.tasks:
        _run_tasks(model, tokenizer, context, args)
        return
    documents: Iterable[str] | Iterable[Document]
    if args.data:
        from foveate.data.corpus import read_documents

        documents = read_documents(args.data, reading=reading_of(args))
    else:
        from foveate.train.documents import corpus_documents
        from foveate.train.run import open_validation

        assert settings is not None
        documents = corpus_documents(open_validation(settings, tokenizer))
    result = evaluate(
        model,
        tokenizer,
        documents,
        context=context,
        batch=args.batch,
        max_tokens=args.tokens,
        special_tokens=args.special_tokens,
    )
    values = dataclasses.asdict(result)
    if args.json:
        print(json.dumps(values))
        return
    print(f"{result.bpb:.4f} bits per byte, perplexity {result.perplexity:.4g}")
    print(
        f"{result.tokens:,} tokens in {result.bytes:,} bytes, context {result.context:,}, "
        f"{result.nll_per_token:.4f} nats per token"
    )


def _run_tasks(model: Any, tokenizer: Any, context: int, args: argparse.Namespace) -> None:
    from foveate.tasks import run_tasks

    results = run_tasks(
        model,
        tokenizer,
        _task_names(args.tasks),
        context=context,
        include_path=args.include_path,
        batch=args.batch or 1,
        few_shot=args.few_shot,
        limit=args.limit,
        special_tokens=args.special_tokens,
    )
    for task, metrics in results.items():
        if args.json:
            print(json.dumps({"task": task, "context": context, **metrics}))
        else:
            print(f"{task}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


def _task_names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
