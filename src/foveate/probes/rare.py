"""``foveate probe rare``: which words one model predicts better than another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foveate.data.reading import reading_of
from foveate.probes.probe import Finding, add_model_arguments, add_text_arguments
from foveate.values import count, length

if TYPE_CHECKING:
    import argparse

HELP = "which words one model predicts better than another, by how often the training text has them"
EXAMPLES = """examples:
  foveate probe rare runs/plain runs/retina --train train.jsonl --data held-out.jsonl --out probes/rare
  foveate probe rare runs/bytes runs/bpe --train train/ --data book.txt --bytes 1M --json
  foveate probe rare path/to/any/causal-lm runs/mine --train corpus.jsonl.xz --data held-out.txt --buckets 1 100 10k

Both models read the same windows of text and are scored on the same words, whatever their tokenizers. The loss of a
word is that of all its tokens and the space before it; where a token of either model joins it with its neighbours, it
is scored together with these, for both. Differences are A less B, with 95% bootstrap intervals over documents (of
fewer than 30, over windows): above 0, B is better. A word is a run of letters and digits; case does not matter."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    model = "a run, a causal language model's folder or name on the hub, or a .gguf file"
    parser.add_argument("model_a", metavar="MODEL_A", help=model)
    parser.add_argument("model_b", metavar="MODEL_B", help="another, to compare it with")
    parser.add_argument(
        "--train",
        nargs="+",
        action="extend",
        required=True,
        metavar="PATH",
        help="the text the models were trained on, to count words in: files, folders, globs, hf:NAME, or books",
    )
    add_text_arguments(parser, "best what neither model has seen")
    parser.add_argument(
        "--bytes", type=count, metavar="N", help="score about so much of --data: the middle of each document alike"
    )
    parser.add_argument(
        "--context",
        type=length,
        metavar="N",
        help="tokens of a window at most, in either tokenizer (default: the models' positions, at most 1024)",
    )
    parser.add_argument(
        "--buckets",
        type=count,
        nargs="+",
        metavar="N",
        help="training counts at which buckets begin, after that of 0 (default: 1 10 100 1k 10k)",
    )
    parser.add_argument(
        "--top", type=count, default=3, metavar="N", help="words to name in each bucket, for each model (default: 3)"
    )
    add_model_arguments(parser, "the resampling")


def run(args: argparse.Namespace) -> Finding:
    from foveate.data.documents import read_documents, read_pieces

    train = read_pieces(args.train, reading=reading_of(args))  # what is missing is heard of at once
    texts = list(read_documents(args.data, reading=reading_of(args)))
    if args.bytes:
        texts = _middles(texts, args.bytes)

    # torch and transformers take seconds to import: after what can be said without them
    from foveate.devices import pick_dtype, read_dtype
    from foveate.loading.several import load_several
    from foveate.probes.rare_words import DECADES, probe_rare
    from foveate.probes.word_loss import Reader
    from foveate.report.rare_plots import rare_plots
    from foveate.report.rare_tables import rare_words

    loaded = load_several([args.model_a, args.model_b], device=args.device)
    dtype = pick_dtype(args.dtype, loaded[0].model.device)
    a, b = (Reader(name=each.name, model=each.model.to(read_dtype(dtype)), tokenizer=each.tokenizer) for each in loaded)
    found = probe_rare(
        a,
        b,
        train,
        texts,
        context=args.context,
        edges=args.buckets or DECADES,
        top=args.top,
        batch=args.batch,
        seed=args.seed,
    )
    first, *others = found.records()
    setup = {"model_a": args.model_a, "model_b": args.model_b, "train": args.train, "data": args.data, "dtype": dtype}
    records = [first | setup, *others]
    return Finding(records=records, said=rare_words(records), plots=rare_plots)


def _middles(texts: Sequence[str], max_bytes: int) -> list[str]:
    each = max(1, max_bytes // len(texts))
    middles = []
    for text in texts:
        raw = text.encode()
        start = max(0, len(raw) - each) // 2
        middles.append(raw[start : start + each].decode(errors="ignore"))
    return middles
