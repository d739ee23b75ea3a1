"""The text of long runs: token ids packed to travel, and the windows that every model is scored on.

    python experiments/long_data.py --data FOLDER --out PACK [--tokens 54M]

FOLDER holds books-train-0.jsonl.xz, books-train-1.jsonl.xz and books-valid.jsonl.xz. The tokenizer is the one that
``foveate train --tokenizer bpe:4096 --data FOLDER/books-train-0.jsonl.xz`` makes; the training tokens are the first
documents of both files, half of ``--tokens`` of each.

Legend: N windows, T tokens of a window, V vocabulary.
"""

from __future__ import annotations

import argparse
import lzma
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from foveate.data.corpus import open_corpus
from foveate.data.documents import read_documents
from foveate.data.prompt import document_mark
from foveate.data.tokenizer import BYTE_CHARACTERS, load_tokenizer, make_tokenizer
from foveate.scoring import document_windows
from foveate.values import count

FILTERS = [
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 27, "lc": 3, "lp": 1, "pb": 1}
]
IGNORED = -100
SCORED_AT_ONCE = 1 << 14  # tokens


def pack(tokens: np.ndarray, path: Path) -> None:
    """Write uint16 ids, compressed to about seven bits each."""
    path.write_bytes(lzma.compress(tokens.astype("<u2").tobytes(), format=lzma.FORMAT_XZ, filters=FILTERS))


def unpack(path: Path) -> np.ndarray:
    """uint16 ids from what ``pack`` wrote."""
    return np.frombuffer(lzma.decompress(path.read_bytes()), "<u2")


def make_pack(folder: Path, out: Path, tokens: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    parts = [str(folder / f"books-train-{half}.jsonl.xz") for half in (0, 1)]
    tokenizer = make_tokenizer("bpe:4096", lambda: read_documents(parts[:1]))
    tokenizer.save_pretrained(out / "tokenizer")
    kept = []
    for part in parts:
        corpus = open_corpus([part], tokenizer)
        end = np.searchsorted(corpus.starts, tokens // 2, side="right") - 1  # whole documents
        kept.append(corpus.tokens[: corpus.starts[end]])
        print(f"{Path(part).name}: {len(kept[-1]):,} tokens in {end} documents", flush=True)
    pack(np.concatenate(kept), out / "train.xz")
    pack(open_corpus([str(folder / "books-valid.jsonl.xz")], tokenizer).tokens[:], out / "valid.xz")


def byte_lengths(tokenizer: object) -> np.ndarray:
    """UTF-8 bytes that each id of a byte-level tokenizer stands for, int64 [V]; 0 for end-of-text."""
    lengths = np.zeros(len(tokenizer), np.int64)  # type: ignore[arg-type]
    known = set(BYTE_CHARACTERS)
    for text, token_id in tokenizer.get_vocab().items():  # type: ignore[attr-defined]
        lengths[token_id] = len(text) if set(text) <= known else 0
    return lengths


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Held-out windows: what is read [N, T], what is to be predicted [N, T] (IGNORED: not scored), and its bytes."""

    inputs: np.ndarray
    targets: np.ndarray
    text_bytes: int


def held_out(pack_folder: Path, context: int, each: int) -> Windows:
    """The first ``each`` tokens of every held-out document, cut as ``foveate eval`` cuts them; whole windows only.

    So the same text for every context that divides ``each``.
    """
    tokenizer = load_tokenizer(pack_folder / "tokenizer")
    tokens = unpack(pack_folder / "valid.xz").astype(np.int64)
    ends = np.flatnonzero(tokens == tokenizer.eos_token_id)
    starts = np.concatenate(([0], ends[:-1] + 1))
    inputs, targets = [], []
    for start, end in zip(starts, ends, strict=True):
        ids = tokens[start : min(end, start + each)]
        ids = ids[: len(ids) - len(ids) % context]
        for window in document_windows(ids, document_mark(tokenizer), context):
            inputs.append(window[0])
            targets.append(window[1])
    all_targets = np.concatenate(targets)
    lengths = byte_lengths(tokenizer)
    scored = all_targets[all_targets != IGNORED]
    return Windows(inputs=np.concatenate(inputs), targets=all_targets, text_bytes=int(lengths[scored].sum()))


@torch.no_grad()
def score(model: nn.Module, windows: Windows, device: torch.device, *, bf16: bool) -> np.ndarray:
    """Negative log-likelihood in nats of every target, float32 [N, T], 0 where it is not scored."""
    inputs_NT, targets_NT = (torch.from_numpy(ids).to(device) for ids in (windows.inputs, windows.targets))
    was_training = model.training
    model.eval()
    rows = max(1, SCORED_AT_ONCE // inputs_NT.shape[1])
    found: list[Tensor] = []
    for inputs, targets in zip(inputs_NT.split(rows), targets_NT.split(rows), strict=True):
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(input_ids=inputs, use_cache=False).logits
        losses = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none", ignore_index=IGNORED)
        found.append(losses.view(targets.shape))
    model.train(was_training)
    return torch.cat(found).cpu().numpy()


def bits_per_byte(nll_NT: np.ndarray, windows: Windows) -> float:
    return float(nll_NT.astype(np.float64).sum() / math.log(2) / windows.text_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the books")
    parser.add_argument("--out", type=Path, required=True, help="folder of the packed tokens")
    parser.add_argument("--tokens", type=count, default=54_000_000)
    args = parser.parse_args()
    make_pack(args.data, args.out, args.tokens)


if __name__ == "__main__":
    main()
