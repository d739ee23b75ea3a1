"""``foveate probe shuffle``: how far back does word order matter? The context before a boundary is scrambled, the text
after it scored.

After Khandelwal et al. (2018), "Sharp Nearby, Fuzzy Far Away". The same tokens are scored under every condition:
``original``; ``shuffle`` (the tokens, words, sentences or blocks before the boundary in random order); ``replace``
(another document's text before the boundary); ``truncate`` (none). Differences are paired, sequence by sequence.

Legend: N sequences, T tokens of one, b of them before the boundary, P permutations, D = T - b distances.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from foveate.errors import FoveateError
from foveate.probes.probe import (
    Condition,
    Finding,
    add_model_arguments,
    add_sequence_arguments,
    load_probed,
    measure,
    read_texts,
)
from foveate.values import count, length

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    import numpy as np
    from rich.console import RenderableType
    from rich.table import Table
    from transformers import PreTrainedTokenizerBase

    from foveate.probes.curves import ShuffleResult, Summary
    from foveate.probes.plan import ShufflePlan, Treatment
    from foveate.probes.sequences import Sequences

HELP = "how far back word order matters: scramble the context, watch the surprise"
EXAMPLES = """examples:
  foveate probe shuffle path/to/any/causal-lm --data book.txt more.jsonl
  foveate probe shuffle model.gguf --data held-out.jsonl --context 1k --unit token word sentence --out probes/gguf
  foveate probe shuffle runs/mine --data article.txt --split-at '^# ' --sweep --out probes/mine
  foveate probe shuffle runs/mine --data held-out.jsonl --suggest      a fovea for a retina of this tokenizer
  foveate probe shuffle runs/mine --data held-out.jsonl --json

Sequences of --context tokens; those before the boundary are treated, those after it scored, the same ones each time:
  shuffle   the tokens (or --unit) before the boundary in random order: the order is gone, the topic is there
  replace   another document's text before the boundary: the topic is gone as well (of one document, another part)
  truncate  nothing before the boundary
Differences from the original are paired, with 95% bootstrap intervals over sequences. The order horizon is how many
untouched tokens after the boundary it takes until the shuffle curve stays within --tolerance of the original, a share
of the curve's own mean at distances 1 to 8; the topic horizon is the same of replace. As a mean is noisy at every
distance, the curve is judged by the decreasing function nearest to it (isotonic regression); so is each resample."""

BINS = (1, 9, 17, 33, 65, 129, 257, 513, 1025)  # distances at which the columns of the printed table begin


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sequence_arguments(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--boundary",
        type=length,
        nargs="+",
        default=[],
        metavar="N",
        help="tokens before the boundary, several for a sweep (default: half of the context)",
    )
    where.add_argument("--sweep", action="store_true", help="boundaries at every eighth of the context, for a map")
    parser.add_argument(
        "--conditions",
        nargs="+",
        default=["shuffle", "replace", "truncate"],
        metavar="C",
        help="which of shuffle, replace, truncate to compare with the original (default: all)",
    )
    parser.add_argument(
        "--unit",
        nargs="+",
        default=["token"],
        metavar="U",
        help="what a shuffle keeps whole: token, word, sentence, block:K; several for a curve each (default: token)",
    )
    parser.add_argument(
        "--permutations",
        type=count,
        default=3,
        metavar="N",
        help="random orders, and other documents, for each sequence (default: 3)",
    )
    parser.add_argument("--suggest", action="store_true", help="from the horizons, a fovea to train with")
    add_model_arguments(parser, "sequences and permutations")


def run(args: argparse.Namespace) -> Finding:
    from foveate.probes.plan import ShufflePlan
    from foveate.report.probe_plots import shuffle_plots

    eighths = tuple(args.context * eighth // 8 for eighth in range(1, 8)) if args.sweep else ()
    plan = ShufflePlan(
        context=args.context,
        boundaries=tuple(args.boundary) or eighths,
        conditions=tuple(args.conditions),
        units=tuple(args.unit),
        sequences=args.sequences,
        permutations=args.permutations,
        tolerance=args.tolerance,
        seed=args.seed,
    )
    texts = read_texts(args)
    model, tokenizer, dtype = load_probed(args)
    result = probe_shuffle(model, tokenizer, texts, plan, batch=args.batch, folder=args.out)
    if result.available < plan.sequences:
        print(f"the text gives {result.available} sequences of {plan.context:,} tokens, no more", file=sys.stderr)
    advice = [_suggest(summary, model) for summary in result.summaries] if args.suggest else []
    return Finding(
        records=[{"model": args.model, "dtype": dtype, "seed": plan.seed, **record} for record in result.to_json()],
        said=_said(result, advice),
        plots=shuffle_plots,
        advice=advice,
    )


def probe_shuffle(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    plan: ShufflePlan | None = None,
    *,
    batch: int | None = None,
    folder: Path | None = None,
    progress: bool = True,
) -> ShuffleResult:
    """Measure what the context before a boundary is worth, in order and scrambled, to the tokens after it.

    Args:
        model: a causal language model in evaluation mode, or anything that is called as one.
        texts: documents. A sequence lies within one of them; ``replace`` takes from another, or from another part
            of the only long one.
        batch: rows computed at once; by default as many as keep the logits near half a GiB.
        folder: where losses are saved while the probe runs, and found again by one that was interrupted.
        progress: on standard error.

    Raises:
        FoveateError: the text is too short for one sequence, or for ``replace`` to take from; a context above the
            model's positions; ids the model does not know; a folder that holds another experiment.
    """
    from foveate.data.encode import encode_documents
    from foveate.hf.identity import weights_digest
    from foveate.probes.curves import summarize
    from foveate.probes.plan import ShufflePlan
    from foveate.probes.sequences import cut_sequences, parts_of_one
    from foveate.scoring import Scorer

    plan = plan or ShufflePlan()
    scorer = Scorer(model, tokenizer, batch=batch)
    documents = [ids for _, ids in encode_documents(tokenizer, texts)]
    if "replace" in plan.conditions:
        given, documents = len(documents), parts_of_one(documents, plan.context, max(plan.boundaries))
        if progress and len(documents) > given:
            print(
                f"replace takes from another of {len(documents) - given + 1} parts of the only long document; text of "
                f"another book would say more of topics",
                file=sys.stderr,
            )
    sequences = cut_sequences(documents, plan.context, plan.sequences, plan.seed)
    scorer.check(sequences.ids, "the text", plan.context)
    conditions = {"original": Condition(rows=sequences.ids, scored=plan.context - min(plan.boundaries))}
    for treatment in plan.treatments():
        context_NPb = treated_context(treatment, sequences, documents, tokenizer, plan.seed)
        rows = _join(context_NPb, sequences.ids[:, treatment.boundary :])
        conditions[treatment.name] = Condition(rows=rows, scored=plan.context - treatment.boundary)

    def identity() -> dict[str, Any]:
        measured = {name: value for name, value in asdict(plan).items() if name not in ("tolerance", "near")}
        return {**measured, "text": sequences.digest, "model": weights_digest(model)}

    losses = measure(scorer, conditions, identity=identity, folder=folder, progress=progress)
    return summarize(plan, losses, sequences)


def treated_context(
    treatment: Treatment,
    sequences: Sequences,
    documents: Sequence[np.ndarray],
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> np.ndarray:
    """What stands before the boundary instead: int64 [N, P, tokens], the tokens ``b``, or 0 for ``truncate``."""
    import numpy as np

    from foveate.probes.sequences import foreign_text
    from foveate.probes.treatments import Unit, permute

    b = treatment.boundary
    ids_Nb = sequences.ids[:, :b]
    # of its own for each treatment: another one more, or less, changes nothing
    random = np.random.default_rng([seed, zlib.crc32(treatment.name.encode())])
    if treatment.condition == "truncate":
        return ids_Nb[:, None, :0]
    if treatment.condition == "replace":
        return foreign_text(documents, sequences.document, b, treatment.permutations, random)
    unit_Nb = Unit.parse(treatment.unit or "token").number(ids_Nb, tokenizer)
    return permute(ids_Nb, unit_Nb, treatment.permutations, random)


def _join(context_NPb: np.ndarray, rest_ND: np.ndarray) -> np.ndarray:
    """Each of P contexts before the same text: [N, P, b + D]."""
    import numpy as np

    N, P, _ = context_NPb.shape
    return np.concatenate([context_NPb, np.broadcast_to(rest_ND[:, None], (N, P, rest_ND.shape[1]))], 2)


def _suggest(summary: Summary, model: Any) -> dict[str, Any]:
    from foveate.probes.suggest import suggest

    if summary.order is None:
        raise FoveateError("--suggest takes the order horizon, which comes from shuffle; leave --conditions out")
    spec = getattr(model.config, "spec", None)
    layers = spec.n_layers if spec is not None else getattr(model.config, "num_hidden_layers", None)
    found = suggest(summary.order, summary.topic, layers=layers or 12)
    return {
        "kind": "suggestion",
        "unit": summary.unit,
        "context": summary.context,
        "boundary": summary.boundary,
        "walk": found.walk,
        "exact": found.exact,
        "grouped": found.grouped,
    }


def _said(result: ShuffleResult, advice: Sequence[dict[str, Any]]) -> Iterator[RenderableType]:
    for boundary in result.plan.boundaries:
        yield _curve_table(result, boundary)
    yield _horizon_table(result)
    first = result.summaries[0]
    yield (
        f"{first.sequences} sequences of {first.context:,} tokens from {first.documents} documents, "
        f"{first.permutations} permutations; in brackets 95% intervals; ≥: to the end of what was measured\n"
        f"order: how many tokens in order it takes until the order of those before them no longer matters\n"
        f"topic: how many it takes until it no longer matters what was before them\n"
        f"order share: what shuffling loses of all that the tokens before the boundary are worth"
    )
    for found in advice:
        yield f'\nfoveate train --walk "{found["walk"]}"'
        yield f"a fovea that sees at least {found['exact']} tokens singly, and groups up to {found['grouped']:,} back"


def _curve_table(result: ShuffleResult, boundary: int) -> Table:
    from foveate.report.screen import new_table

    D = result.plan.context - boundary
    starts = [start for start in BINS if start <= D]
    ends = [*(start - 1 for start in starts[1:]), D]
    bins = list(zip(starts, ends, strict=True))
    table = new_table(f"nats more, boundary {boundary:,}", (f"{start}–{end}" for start, end in bins))
    for curve in result.curves:
        if curve.boundary == boundary and curve.condition != "original":
            means = [curve.delta.mean[start - 1 : end].mean() for start, end in bins]
            table.add_row(f"{curve.condition} {curve.unit or ''}", *(f"{mean:.3f}" for mean in means))
    table.add_section()
    return table


def _horizon_table(result: ShuffleResult) -> Table:
    from foveate.report.screen import new_table

    table = new_table("boundary", ("unit", "order horizon", "topic horizon", "order share"))
    for summary in result.summaries:
        share = summary.order_share
        table.add_row(
            f"{summary.boundary:,}",
            summary.unit or "",
            str(summary.order or ""),
            str(summary.topic or ""),
            "" if share is None else f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]",
        )
    return table
