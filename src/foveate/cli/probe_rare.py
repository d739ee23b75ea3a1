"""``foveate probe rare``: which words one model predicts better than another."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foveate.values import count, length, seed

HELP = "which words one model predicts better than another, by how often the training text has them"
EXAMPLES = """examples:
  foveate probe rare runs/plain runs/retina --train train.jsonl --data held-out.jsonl --out probes/rare
  foveate probe rare runs/bytes runs/bpe --train train/ --data book.txt --bytes 1M --json
  foveate probe rare path/to/any/causal-lm runs/mine --train corpus.jsonl.xz --data held-out.txt --buckets 1 100 10k

Both models read the same windows of text and are scored on the same words, whatever their tokenizers. The loss of a
word is that of all its tokens and the space before it; where a token of either model joins it with its neighbours, it
is scored together with these, for both. Differences are A less B, with 95% bootstrap intervals over documents (of
fewer than 30, over windows): above 0, B is better. A word is a run of letters and digits; case does not matter."""

PLAIN_WIDTH = 140  # columns, where the output is not a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    model = "a run, a causal language model's folder or name on the hub, or a .gguf file"
    parser.add_argument("model_a", metavar="MODEL_A", help=model)
    parser.add_argument("model_b", metavar="MODEL_B", help="another, to compare it with")
    paths = "files, folders, globs, hf:NAME, or books"
    for name, meaning in (
        ("--train", f"the text the models were trained on, to count words in: {paths}"),
        ("--data", f"the text to score, best what neither model has seen: {paths}"),
    ):
        parser.add_argument(name, nargs="+", action="extend", required=True, metavar="PATH", help=meaning)
    parser.add_argument("--text-field", default="text", metavar="NAME", help="of .jsonl lines (default: text)")
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
    parser.add_argument("--batch", type=count, metavar="N", help="windows computed at once (default: by memory)")
    parser.add_argument(
        "--dtype", default="auto", metavar="T", help="fp32, bf16, or auto: bf16 where that is faster (default: auto)"
    )
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the resampling (default: 0)")
    parser.add_argument("--out", metavar="DIR", help="folder for results.jsonl and the figures, as PNG and SVG")
    parser.add_argument("--json", action="store_true", help="one JSON object per line on standard output")


def run(args: argparse.Namespace) -> None:
    from foveate.data.documents import read_documents, read_pieces
    from foveate.report.files import check_folder

    folder = Path(args.out) if args.out else None
    if folder is not None:
        check_folder(folder)
    train = read_pieces(args.train, text_field=args.text_field)  # what is missing is heard of at once
    texts = list(read_documents(args.data, text_field=args.text_field))
    if args.bytes:
        texts = _middles(texts, args.bytes)

    # torch and transformers take seconds to import: after what can be said without them
    from foveate.bench.subjects import load_subjects
    from foveate.devices import pick_dtype, read_dtype
    from foveate.probes.rare_words import DECADES, probe_rare
    from foveate.probes.word_loss import Reader

    subjects = load_subjects([args.model_a, args.model_b], device=args.device)
    dtype = pick_dtype(args.dtype, subjects[0].model.device)
    a, b = (
        Reader(name=subject.name, model=subject.model.to(read_dtype(dtype)), tokenizer=subject.tokenizer)
        for subject in subjects
    )
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
    if folder is not None:
        _write(folder, records)
    if args.json:
        for record in records:
            print(json.dumps(record))
    else:
        _print(records, folder)


def _middles(texts: Sequence[str], max_bytes: int) -> list[str]:
    each = max(1, max_bytes // len(texts))
    middles = []
    for text in texts:
        raw = text.encode()
        start = max(0, len(raw) - each) // 2
        middles.append(raw[start : start + each].decode(errors="ignore"))
    return middles


def _write(folder: Path, records: Sequence[dict[str, Any]]) -> None:
    from foveate.files import write_atomically
    from foveate.report.rare_plots import rare_plots

    for plot in rare_plots(records):
        write_atomically(folder / f"{plot.name}.svg", plot.svg)
        write_atomically(folder / f"{plot.name}.png", plot.png)
    write_atomically(folder / "results.jsonl", "".join(json.dumps(record) + "\n" for record in records))


def _print(records: Sequence[dict[str, Any]], folder: Path | None) -> None:
    from rich.console import Console

    from foveate.report.rare_tables import print_rare_words

    print_rare_words(records, Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH))
    if folder is not None:
        print(f"\nfigures and numbers: {folder}")
