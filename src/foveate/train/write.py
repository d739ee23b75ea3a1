"""Text that a model writes by itself, as data to train on where its own cannot be had.

Legend: B documents of a batch, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GenerationConfig, set_seed

from foveate.data.decode import decode_text
from foveate.data.prompt import document_mark
from foveate.errors import FoveateError
from foveate.files import is_disk_full
from foveate.scoring import position_limit
from foveate.train.sample import only_ends

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def write_documents(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    out: str | Path,
    *,
    name: str,
    tokens: int,
    length: int,
    batch: int = 32,
    temperature: float = 1.0,
    seed: int = 0,
    on_tokens: Callable[[int], Any] = lambda count: None,
) -> int:
    """Write documents to the .jsonl file ``out`` until they have ``tokens`` tokens, and return how many they have.

    Each document begins after the mark and ends with the model's own mark, or after ``length`` tokens. A line has
    what it was drawn with, its ``text`` and how many ``tokens`` that is. A file that is there is gone on with, from its
    last whole batch: the same arguments give the same file however often it was interrupted.

    Args:
        name: of the model, for the lines.
        on_tokens: called with the tokens of each batch, those of the file's beginning included.

    Raises:
        FoveateError: options out of range; a file that holds something else; a full disk.
    """
    limit = position_limit(model)
    if limit is not None and length + 1 > limit:
        raise FoveateError(f"--length: {length} and the mark are more than the {limit} positions that the model has")
    if not 0 < temperature <= 100:
        raise FoveateError(f"--temperature: {temperature:g} must be above 0 and at most 100")
    drawn_with = {"model": name, "seed": seed, "temperature": temperature, "length": length, "batch": batch}
    out = Path(out)
    try:
        lines = _whole_batches(out, drawn_with)
        done = sum(line["tokens"] for line in lines)
        on_tokens(done)
        with out.open("ab") as file:
            for number in range(len(lines) // batch, 1 << 40):
                if done >= tokens:
                    break
                written = _write_batch(model, tokenizer, drawn_with, number)
                file.write(b"".join(map(_line, written)))
                file.flush()
                new = sum(line["tokens"] for line in written)
                done += new
                on_tokens(new)
    except OSError as error:
        reason = "no space left" if is_disk_full(error) else error.strerror
        raise FoveateError(f"--out: cannot write {out}: {reason}") from None
    return done


def _whole_batches(out: Path, drawn_with: dict[str, Any]) -> list[dict[str, Any]]:
    """The documents that a file holds already; what is no whole batch is cut off."""
    if not out.exists():
        return []
    lines = out.read_bytes().splitlines(keepends=True)
    begin = _line(drawn_with)[: -len("}\n")] + b", "
    try:
        if not all(line.startswith(begin[: len(line)]) for line in lines):
            raise ValueError
        documents = [json.loads(line) for line in lines if line.endswith(b"\n")]
    except ValueError:
        raise FoveateError(f"--out: {out} holds something else; choose a new file") from None
    whole = len(documents) - len(documents) % drawn_with["batch"]
    with out.open("r+b") as file:
        file.truncate(sum(map(len, lines[:whole])))
    return documents[:whole]


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode() + b"\n"


@torch.no_grad()
def _write_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, drawn_with: dict[str, Any], number: int
) -> list[dict[str, Any]]:
    mark, ends = document_mark(tokenizer), model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or ())
    ends.append(tokenizer.eos_token_id)
    start_BT = torch.full((drawn_with["batch"], 1), mark, device=model.device)
    set_seed(int(np.random.SeedSequence([drawn_with["seed"], number]).generate_state(1)[0]))
    generate: Any = model.generate
    with only_ends(model):
        drawn_BT = generate(
            start_BT,
            attention_mask=torch.ones_like(start_BT),
            generation_config=GenerationConfig(
                do_sample=True,
                temperature=drawn_with["temperature"],
                top_k=0,
                top_p=1.0,
                max_new_tokens=drawn_with["length"],
                eos_token_id=ends,
                pad_token_id=tokenizer.pad_token_id,
            ),
        )[:, 1:].tolist()
    documents = []
    for drawn in drawn_BT:
        end = next((place for place, token in enumerate(drawn) if token in ends), len(drawn))
        text = decode_text(tokenizer, drawn[:end], [mark])
        documents.append({**drawn_with, "tokens": end + 1, "text": text})  # so that a cut line says whose it is
    return documents
