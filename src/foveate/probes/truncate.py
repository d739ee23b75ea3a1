"""``foveate probe truncate``: how much context does a token need? Each is scored with ever more of the text before it.

The second half of each sequence is scored under every condition. With c tokens, c = 1, 2, 4, …, half of the sequence,
it is cut into groups of c, each read after no more than the c tokens before it: so a token has c to 2c - 1 tokens
before it, and a condition reads every token twice. The longest one is the reference; 0 is a token after nothing.

Together these give the loss at every length of context below half the sequence, each from other tokens, and always
against the reference of the same token. The context horizon is read off the decreasing function nearest to that curve.

Legend: N sequences, K tokens scored of each, c tokens to a group, G = K / c groups, D lengths of context.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foveate.errors import FoveateError
from foveate.probes.probe import (
    Condition,
    Finding,
    Record,
    add_model_arguments,
    add_sequence_arguments,
    load_probed,
    measure,
    read_texts,
)
from foveate.values import count

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    import numpy as np
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from transformers import PreTrainedTokenizerBase

    from foveate.probes.horizons import Band, Horizon
    from foveate.report.figures import Plot

HELP = "how much context a token needs: score it with ever more of the text before it"
EXAMPLES = """examples:
  foveate probe truncate path/to/any/causal-lm --data book.txt more.jsonl
  foveate probe truncate runs/mine --data held-out.jsonl --context 1k --out probes/mine
  foveate probe truncate model.gguf --data article.txt --tokens 120 --json

The second half of sequences of --context tokens is scored, the same tokens each time: after nothing, and with 1, 2 to
3, 4 to 7, ... tokens before them, up to all. Differences from the longest are paired, with 95% bootstrap intervals over
documents or sequences. The context horizon is how many tokens of context it takes until more of them, up to --context,
make less than --tolerance of the difference that the first 8 tokens do not make up. A figure shows the first --tokens
tokens one by one: how surprising each is, by how much of the text before it was there."""

NEAR = 8  # the shortest contexts, whose mean difference is the whole that the tolerance is a share of


@dataclass(frozen=True, kw_only=True)
class TruncatePlan:
    """Which sequences are scored, ``context`` tokens each, and what counts as nothing (``tolerance``, a share)."""

    context: int = 512
    sequences: int = 200
    tolerance: float = 0.05
    tokens: int = 64  # shown one by one
    seed: int = 0

    def __post_init__(self) -> None:
        if self.context < 4 or self.context & (self.context - 1):
            raise FoveateError(f"--context: {self.context} must be a power of two from 4, such as 512")
        if self.sequences < 2:
            raise FoveateError(f"--sequences: {self.sequences} must be at least 2, of one there is no interval")
        if not 0 < self.tolerance < 1:
            raise FoveateError(f"--tolerance: {self.tolerance} must be a share between 0 and 1, such as 0.05")
        for name, least in (("tokens", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise FoveateError(f"--{name}: {getattr(self, name)} must be at least {least}")

    @property
    def scored(self) -> int:
        return self.context // 2

    @property
    def groups(self) -> tuple[int, ...]:
        """The c of each condition: 0, 1, 2, 4, … to half of the sequence."""
        return (0, *(1 << power for power in range(self.scored.bit_length())))


@dataclass(frozen=True, kw_only=True)
class Truncation:
    """What ``probe_truncate`` measured.

    Attributes:
        contexts: of each condition the fewest and the most tokens before a scored one.
        nats: mean loss under each condition, in nats.
        delta: the same less that of the longest, with its interval.
        curve: loss at each distance d = 1, 2, …, that is with d - 1 tokens of context, less the longest's.
        horizon: tokens of context beyond which more make no difference.
        pieces, piece_nats: the first tokens of the first sequence, and the loss [conditions, tokens] of each.
    """

    plan: TruncatePlan
    contexts: tuple[tuple[int, int], ...]
    nats: np.ndarray
    delta: Band
    curve: Band
    binned: Band
    horizon: Horizon
    pieces: tuple[str, ...]
    piece_nats: np.ndarray
    sequences: int
    documents: int

    def records(self) -> Iterator[Record]:
        more = self.delta.to_json()
        for at, (low, high) in enumerate(self.contexts):
            record = {"context_low": low, "context_high": high, "nats": round(float(self.nats[at]), 6)}
            yield {"kind": "context", **record, **{k: more[k][at] for k in ("delta_nats", "ci_low", "ci_high")}}
        yield {"kind": "curve", **self.curve.to_json(), "binned": self.binned.to_json()}
        found = self.horizon
        yield {
            "kind": "summary",
            "context": self.plan.context,
            "context_horizon": found.tokens,
            "context_horizon_ci": [found.low, found.high],
            "context_horizon_at_least": found.tokens == found.farthest,
            "tolerance_nats": round(found.tolerance_nats, 6),
            "sequences": self.sequences,
            "documents": self.documents,
        }
        for at, piece in enumerate(self.pieces):
            nats = [round(float(value), 4) for value in self.piece_nats[:, at]]
            yield {"kind": "token", "place": self.plan.scored + at, "text": piece, "nats": nats}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sequence_arguments(parser)
    parser.add_argument("--tokens", type=count, default=64, metavar="N", help="tokens to show singly (default: 64)")
    add_model_arguments(parser, "sequences")


def run(args: argparse.Namespace) -> Finding:
    names = ("context", "sequences", "tolerance", "tokens", "seed")
    plan = TruncatePlan(**{name: getattr(args, name) for name in names})
    texts = read_texts(args)
    model, tokenizer, dtype = load_probed(args)
    found = probe_truncate(model, tokenizer, texts, plan, batch=args.batch, folder=args.out)
    setup = {"model": args.model, "dtype": dtype, "seed": plan.seed}
    return Finding(records=[setup | record for record in found.records()], said=_said(found), plots=truncate_plots)


def probe_truncate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    plan: TruncatePlan | None = None,
    *,
    batch: int | None = None,
    folder: Path | None = None,
    progress: bool = True,
) -> Truncation:
    """Score the second half of sequences with ever more of the text before each token.

    Args:
        model: a causal language model, or anything that is called as one.
        texts: documents; a sequence lies within one of them.
        batch: rows computed at once; by default as many as keep the logits near half a GiB.
        folder: where losses are saved while the probe runs, and found again by one that was interrupted.
        progress: on standard error.

    Raises:
        FoveateError: the text is too short for one sequence; a context above the model's positions; ids the model does
            not know; a folder that holds another experiment.
    """
    from foveate.data.encode import encode_documents
    from foveate.hf.identity import weights_digest
    from foveate.probes.sequences import cut_sequences
    from foveate.scoring import Scorer

    plan = plan or TruncatePlan()
    scorer = Scorer(model, tokenizer, batch=batch)
    documents = [ids for _, ids in encode_documents(tokenizer, texts)]
    sequences = cut_sequences(documents, plan.context, plan.sequences, plan.seed)
    scorer.check(sequences.ids, "the text", plan.context)
    conditions = {f"context {c}": _condition(sequences.ids, plan.scored, c) for c in plan.groups}

    def identity() -> Record:
        measured = {"context": plan.context, "sequences": plan.sequences, "seed": plan.seed}
        return {**measured, "text": sequences.digest, "model": weights_digest(model)}

    losses = measure(scorer, conditions, identity=identity, folder=folder, progress=progress)
    pieces = [str(tokenizer.decode([token])) for token in sequences.ids[0, plan.scored :][: plan.tokens].tolist()]
    return summarize(plan, list(losses.values()), sequences.document, pieces)


def _condition(ids_NT: np.ndarray, K: int, c: int) -> Condition:
    """The last ``K`` tokens in groups of ``c``, each after the c before it; of 0, each token by itself."""
    from numpy.lib.stride_tricks import sliding_window_view

    width, step = (2 * c, c) if c else (1, 1)
    return Condition(rows=sliding_window_view(ids_NT[:, K - c :], width, axis=1)[:, ::step], scored=step)


def summarize(
    plan: TruncatePlan, losses: list[np.ndarray], document_N: np.ndarray, pieces: Sequence[str]
) -> Truncation:
    """Curves and horizon of the losses of each condition, [N, G, c]."""
    import numpy as np

    from foveate.probes.horizons import Resampled, horizon

    N, K = len(document_N), plan.scored
    nats_NCK = np.stack([loss.reshape(N, K) for loss in losses], 1).astype(np.float64)
    delta_NCK = nats_NCK - nats_NCK[:, -1:]
    # with c tokens the first of each group has c before it, the last 2c - 1
    by_length = [delta_NCK[:, at].reshape(N, -1, max(c, 1)).mean(1) for at, c in enumerate(plan.groups[:-1])]
    curve = Resampled.of(np.concatenate(by_length, 1), seed=plan.seed, document_N=document_N)
    return Truncation(
        plan=plan,
        contexts=tuple((c, max(2 * c - 1, 0)) for c in plan.groups),
        nats=nats_NCK.mean((0, 2)),
        delta=Resampled.of(delta_NCK.mean(2), seed=plan.seed, document_N=document_N).band(),
        curve=curve.band(),
        binned=curve.binned(),
        horizon=horizon(curve, share=plan.tolerance, near=NEAR),
        pieces=tuple(pieces),
        piece_nats=nats_NCK[0, :, : len(pieces)],
        sequences=N,
        documents=len(np.unique(document_N)),
    )


def _said(found: Truncation) -> Iterator[RenderableType]:
    from foveate.report.screen import new_table

    table = new_table("tokens before", ("nats per token", "more than with all"))
    for at, (low, high) in enumerate(found.contexts):
        band = found.delta
        more = f"{band.mean[at]:.3f} [{band.low[at]:.3f}, {band.high[at]:.3f}]" if low < found.plan.scored else ""
        table.add_row(_range(low, high), f"{found.nats[at]:.3f}", more)
    yield table
    yield (
        f"\n{found.sequences} sequences of {found.plan.context:,} tokens from {found.documents} documents, "
        f"{found.plan.scored:,} scored in each; in brackets 95% intervals\n"
        f"context horizon: {found.horizon} tokens; all the text beyond them is worth less than "
        f"{found.horizon.tolerance_nats:.3f} nats a token, {found.plan.tolerance:.0%} of what it is worth "
        f"to tokens with the first {NEAR} lengths of context"
    )


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def truncate_plots(records: list[Record]) -> list[Plot]:
    """``context``: the loss over the length of context; ``tokens``: the heat map of single tokens, if any are shown."""
    from foveate.report.figures import drawn

    tokens = [record for record in records if record["kind"] == "token"]
    found = drawn(
        "context", "What is lost without more context, by its length; band: 95% of resamples.", lambda: _curve(records)
    )
    if tokens:
        caption = "How surprising each token is (column), by how much of the text before it was there (row)."
        found += drawn("tokens", caption, lambda: _heat_map(records, tokens))
    return found


def _curve(records: list[Record]) -> Figure:
    from foveate.report.figures import COLOURS, INK, WIDTH, new_figure

    [curve] = [record["binned"] for record in records if record["kind"] == "curve"]
    [summary] = [record for record in records if record["kind"] == "summary"]
    figure = new_figure(WIDTH, 3.2)
    ax = figure.subplots()
    ax.plot(curve["distance"], curve["delta_nats"], color=COLOURS[1], lw=1.8)
    ax.fill_between(curve["distance"], curve["ci_low"], curve["ci_high"], color=COLOURS[1], alpha=0.2, lw=0)
    ax.axhline(0, color=INK, lw=0.8)
    low, high = summary["context_horizon_ci"]
    sign = "≥ " if summary["context_horizon_at_least"] else ""
    ax.axvspan(max(low, 1), max(high, 1), color=COLOURS[2], alpha=0.25, lw=0)
    ax.axvline(max(summary["context_horizon"], 1), color=COLOURS[2], lw=1.5)
    ax.set_title(f"context horizon {sign}{summary['context_horizon']} [{low}, {high}]")
    ticks = [1 << power for power in range(int(curve["distance"][-1]).bit_length())]
    ax.set(xscale="log", xlabel="tokens of context, and the token itself", ylabel="nats per token more than with all")
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.grid(axis="y", color=INK, alpha=0.13, lw=0.6)
    return figure


def _heat_map(records: list[Record], tokens: list[Record]) -> Figure:
    from foveate.report.figures import WIDTH, new_figure

    contexts = [(r["context_low"], r["context_high"]) for r in records if r["kind"] == "context"]
    figure = new_figure(max(WIDTH, 1.6 + 0.16 * len(tokens)), 1.4 + 0.22 * len(contexts))
    ax = figure.subplots()
    image = ax.pcolormesh([list(row) for row in zip(*(token["nats"] for token in tokens), strict=True)], cmap="viridis")
    ax.set_yticks([at + 0.5 for at in range(len(contexts))], [_range(*each) for each in contexts])
    names = [token["text"].replace("$", r"\$").replace("\n", "⏎").replace(" ", "·") for token in tokens]
    ax.set_xticks([at + 0.5 for at in range(len(tokens))], names, rotation=90, fontsize=7)
    ax.tick_params(length=0)
    ax.set(ylabel="tokens before", title="nats of each token")
    figure.colorbar(image, ax=ax, label="nats").outline.set_visible(False)
    return figure
