"""Tokenizers: raw bytes, byte-level BPE trained on the text at hand, or any tokenizer that already exists.

The tokenizers made here give back every text exactly, and id == byte for the first 256 ids: ``bytes`` is ``bpe:N``
without merges. Called as ``tokenizer(text)`` they put the mark before the text that a document begins after; see
``foveate.data.prompt`` for the rule that everything here encodes by.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from foveate.data.hub import hub_is_reachable
from foveate.errors import FoveateError, first_line
from foveate.limits import check_counts, check_regular, read_json

END_OF_TEXT, PADDING = "<|endoftext|>", "<|padding|>"
END_ID, PADDING_ID = 256, 257
MAX_VOCABULARY = 1 << 20
SAMPLE_CHARACTERS = 12_000_000  # BPE learns from one to two times this much text
SAMPLE_PIECE = 16_384

CHOICES = "write bytes, bpe:4096, or the path or hub name of a tokenizer"


def make_tokenizer(kind: str, texts: Callable[[], Iterable[str]], *, progress: bool = True) -> PreTrainedTokenizerBase:
    """The tokenizer that ``kind`` names, with end-of-text and padding tokens, padding on the left.

    Args:
        kind: ``bytes`` (258 ids), ``bpe:N`` (N ids in all, learned from ``texts``; fewer where the text is too short
            to fill them), or the path (a folder, a run directory, a ``tokenizer.json``) or hub name of any tokenizer.
            ``bytes`` always means bytes: write ``./bytes`` for a folder of that name.
        texts: called only for ``bpe:N``; the training documents. Of a long text an evenly spaced sample is used.
        progress: show BPE training on a terminal, and say what it came to, on standard error.

    Raises:
        FoveateError: ``kind`` is none of these, or cannot be loaded.
    """
    if kind == "bytes":
        return _byte_level([])
    if kind.startswith("bpe:"):
        size = kind.removeprefix("bpe:")
        if not re.fullmatch("[0-9]{1,9}", size) or not PADDING_ID < int(size) <= MAX_VOCABULARY:
            raise FoveateError(
                f"tokenizer {kind!r}: N in bpe:N is the number of ids, from {PADDING_ID + 1} to {MAX_VOCABULARY}, "
                f"for example bpe:4096"
            )
        return _train_bpe(int(size), texts(), progress=progress)
    return load_tokenizer(kind, new_padding=True)


def load_tokenizer(path: str | Path, *, new_padding: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer saved at ``path``, or of that name on the hub.

    What a language model needs and the tokenizer lacks is added: an end-of-text token (``<|endoftext|>``, a new id
    where it has none), a padding token, padding on the left.

    Args:
        new_padding: a padding token that is missing becomes a new id, for a model yet to be made; otherwise it is the
            end-of-text token, as a model that is there knows no other id.

    Raises:
        FoveateError: there is nothing at ``path``, or what is there is not a tokenizer.
    """
    place = Path(path).expanduser()
    tokenizer: PreTrainedTokenizerBase
    try:
        if place.is_file():
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(place))
        elif str(path) and place.is_dir():  # an empty path would be the current folder
            tokenizer = _load_folder(place)
        elif _may_be_hub_name(str(path)):
            tokenizer = AutoTokenizer.from_pretrained(
                str(path), local_files_only=not hub_is_reachable(), trust_remote_code=False
            )
        else:
            raise FoveateError(f"tokenizer {str(path)!r}: there is no such file or folder; {CHOICES}")
    except FoveateError:
        raise
    except Exception as error:  # of which kind depends on the file and on the library that reads it
        raise FoveateError(f"tokenizer {str(path)!r} cannot be loaded ({_reason(error, place)}); {CHOICES}") from error
    if tokenizer.eos_token_id is None:
        tokenizer.add_special_tokens({"eos_token": END_OF_TEXT})
    if tokenizer.pad_token_id is None and new_padding:
        tokenizer.add_special_tokens({"pad_token": PADDING})
    elif tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    if is_ours(tokenizer):
        _begin_with_mark(tokenizer.backend_tokenizer)  # those saved before it was so did not
    return tokenizer


def _load_folder(folder: Path) -> PreTrainedTokenizerBase:
    for path in sorted(folder.iterdir()):
        check_regular(path)
    # without its config AutoTokenizer would go by the model's type, and fail for a bare tokenizer.json
    if (folder / "tokenizer.json").is_file() and not (folder / "tokenizer_config.json").is_file():
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    if (folder / "config.json").is_file():  # it is read for the model's type, and built in passing
        check_counts(read_json(folder / "config.json"), folder / "config.json")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _may_be_hub_name(name: str) -> bool:
    return re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", name) is not None


def _reason(error: Exception, place: Path) -> str:
    if (place / "tokenizer.model").is_file() and not (place / "tokenizer.json").is_file():
        return "reading its tokenizer.model takes the packages sentencepiece and protobuf"
    if place.is_dir() and not any(place.glob("*token*")) and not any(place.glob("vocab*")):
        return "the folder holds no tokenizer"
    if not place.exists():
        return "there is no such file or folder, nor can it be had from the hub"
    return first_line(error)


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many rows an embedding needs: the largest id plus one (some tokenizers skip ids)."""
    return max(tokenizer.get_vocab().values()) + 1


def _byte_characters() -> list[str]:
    """What byte-level tokenizers since GPT-2 write for each of the 256 bytes: itself, or else a character past them."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    others = iter(sorted(character for character in alphabet if ord(character) > 255))
    return [chr(byte) if chr(byte) in alphabet else next(others) for byte in range(256)]


BYTE_CHARACTERS = _byte_characters()


def _byte_level(merges: Sequence[tuple[str, str]]) -> PreTrainedTokenizerFast:
    """Ids: the 256 bytes, end of text, padding, then one for each new token in the order of ``merges``."""
    ids = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}
    ids |= {END_OF_TEXT: END_ID, PADDING: PADDING_ID}
    for left, right in merges:
        ids.setdefault(left + right, len(ids))
    backend = Tokenizer(models.BPE(vocab=ids, merges=list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    _begin_with_mark(backend)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PADDING,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _begin_with_mark(backend: Tokenizer) -> None:
    backend.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A", pair=f"{END_OF_TEXT} $A $B", special_tokens=[(END_OF_TEXT, END_ID)]
    )


def is_ours(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer was made here: the bytes first, then the mark, which both begins and ends a text."""
    return tokenizer.bos_token_id == tokenizer.eos_token_id == END_ID and (
        tokenizer.convert_ids_to_tokens([0, 1, 254, 255, END_ID])
        == [*(BYTE_CHARACTERS[byte] for byte in (0, 1, 254, 255)), END_OF_TEXT]
    )


def is_byte_tokenizer(backend: Tokenizer) -> bool:
    """Whether a text's ids are exactly its UTF-8 bytes."""
    parts = json.loads(backend.to_str())
    model, splitter = parts["model"], parts["pre_tokenizer"] or {}
    return (
        model["type"] == "BPE"
        and not model["merges"]
        and all(model["vocab"].get(character) == byte for byte, character in enumerate(BYTE_CHARACTERS))
        and parts["normalizer"] is None
        and splitter.get("type") == "ByteLevel"
        and not splitter["add_prefix_space"]
        and all(token["special"] for token in parts["added_tokens"])
    )


def _train_bpe(size: int, texts: Iterable[str], *, progress: bool) -> PreTrainedTokenizerFast:
    sample = _sample(texts)
    if not sample:
        raise FoveateError(f"tokenizer bpe:{size}: there is no text to learn it from")
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.train_from_iterator(
        sample,
        trainers.BpeTrainer(
            vocab_size=size - 2,  # the mark and padding take two
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=progress and sys.stderr.isatty(),
        ),
    )
    merges = [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]
    tokenizer = _byte_level(merges)
    if progress and len(tokenizer) < size:
        print(f"tokenizer: the text is enough for {len(tokenizer)} of {size} ids", file=sys.stderr)
    return tokenizer


def _sample(texts: Iterable[str]) -> list[str]:
    """Evenly spaced pieces of all texts, in one pass: whenever too many are held, every second one goes."""
    kept: list[str] = []
    held, spacing, seen = 0, 1, 0
    for text in texts:
        for start in range(0, len(text), SAMPLE_PIECE):
            if seen % spacing == 0:
                kept.append(text[start : start + SAMPLE_PIECE])
                held += len(kept[-1])
            seen += 1
            if held > 2 * SAMPLE_CHARACTERS:
                kept = kept[::2]
                held = sum(map(len, kept))
                spacing *= 2
    return kept
