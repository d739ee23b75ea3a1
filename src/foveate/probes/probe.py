"""The shape of a probe: conditions, their losses, statistics of these, and a table and figures of the statistics.

A probe is a module listed in ``KINDS``, which defines ``HELP``, ``EXAMPLES``, ``add_arguments(parser)`` and
``run(args) -> Finding``. The command line imports it to show its help, so what takes long to import belongs inside its
functions.

Legend: N sequences, T tokens of a row, K of them scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from foveate.data.reading import add_reading_arguments, reading_of
from foveate.values import count, seed

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    import numpy as np
    from rich.console import RenderableType

    from foveate.report.figures import Plot
    from foveate.scoring import Scorer

KINDS = ("shuffle", "rare", "truncate")
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a probe found: records (JSON objects) with every number, and what people see of them.

    Attributes:
        records: those that a file keeps, and from which figures are drawn.
        said: what is printed for people: tables, and lines of text.
        plots: draws the figures.
        advice: records that are only printed.
    """

    records: list[Record]
    said: Iterable[RenderableType]
    plots: Callable[[list[Record]], list[Plot]]
    advice: list[Record] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One thing that is read in the place of each sequence: rows of tokens, of which the last ``scored`` are scored."""

    rows: np.ndarray  # integers [N, T], or [N, P, T] for P rows to a sequence
    scored: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the losses."""
        return (*self.rows.shape[:-1], self.scored)


def measure(
    scorer: Scorer,
    conditions: Mapping[str, Condition],
    *,
    identity: Callable[[], Record],
    folder: Path | None,
    progress: bool,
) -> dict[str, np.ndarray]:
    """The losses of all conditions in nats, float32 [N, ..., K], some sequences under each before the next ones.

    Args:
        identity: what the losses are of, all that decides them; asked where there is a folder.
        folder: where losses are saved meanwhile, and found again by a probe that was interrupted.

    Raises:
        FoveateError: a folder that holds another experiment, or a damaged file.
    """
    from foveate.probes.store import Losses
    from foveate.progress import token_progress

    kept = Losses({name: each.shape for name, each in conditions.items()}, identity() if folder else {}, folder)
    N = len(next(iter(conditions.values())).rows)
    tokens_each = sum(each.rows[0].size for each in conditions.values())
    at_once = scorer.rows(max(each.rows.shape[-1] for each in conditions.values()))
    with scorer.ready(), token_progress("probing", N * tokens_each, show=progress) as advance, ExitStack() as at_end:
        at_end.callback(kept.save)  # also what an interruption leaves
        advance(kept.done * tokens_each)
        for start in range(kept.done, N, at_once):
            found = {}
            for name, each in conditions.items():
                rows = each.rows[start : start + at_once]
                losses = scorer.last(rows.reshape(-1, rows.shape[-1]), each.scored)
                found[name] = losses.reshape(*rows.shape[:-1], each.scored)
                advance(rows.size)
            kept.add(found)
    return kept.arrays


# what the command lines of probes share ------------------------------------------------------------------------------


def add_text_arguments(parser: argparse.ArgumentParser, data: str = "best what the model has not seen") -> None:
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        required=True,
        metavar="PATH",
        help=f"the text to score: files, folders, globs, hf:NAME, or books; {data}",
    )
    add_reading_arguments(parser)


def add_model_arguments(parser: argparse.ArgumentParser, seeded: str) -> None:
    """``--batch``, ``--dtype``, ``--device`` and ``--seed``."""
    parser.add_argument("--batch", type=count, metavar="N", help="rows computed at once (default: by memory)")
    parser.add_argument(
        "--dtype", default="auto", metavar="T", help="fp32, bf16, or auto: bf16 where that is faster (default: auto)"
    )
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help=f"of {seeded} (default: 0)")


def add_sequence_arguments(parser: argparse.ArgumentParser) -> None:
    """A model, texts, and how many sequences of what length to cut out of them."""
    from foveate.values import length

    parser.add_argument(
        "model", metavar="MODEL", help="a run, a causal language model's folder or name on the hub, or a .gguf file"
    )
    add_text_arguments(parser)
    parser.add_argument(
        "--split-at",
        metavar="REGEX",
        help="cut every document before each match, ^ and $ meaning lines: '^ = [^=]+ = $' for WikiText's articles",
    )
    parser.add_argument("--context", type=length, default=512, metavar="N", help="tokens of a sequence (default: 512)")
    parser.add_argument("--sequences", type=count, default=200, metavar="N", help="how many, at most (default: 200)")
    parser.add_argument(
        "--tolerance", type=float, default=0.05, metavar="X", help="share that counts as nothing (default: 0.05)"
    )


def read_texts(args: argparse.Namespace) -> Iterable[str]:
    from foveate.data.documents import read_documents
    from foveate.probes.sequences import split_at

    texts = read_documents(args.data, reading=reading_of(args))
    return split_at(texts, args.split_at) if args.split_at else texts


def load_probed(args: argparse.Namespace) -> tuple[Any, Any, str]:
    """The model, its tokenizer, and the precision it was loaded in."""
    from foveate.devices import pick_device, pick_dtype
    from foveate.loading import load

    dtype = pick_dtype(args.dtype, pick_device(args.device))
    return *load(args.model, device=args.device, dtype=dtype), dtype
