"""Documents are encoded as plain text, and in pieces exactly as in one piece."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from foveate.data import encode as module
from foveate.data.encode import encode_documents
from foveate.data.tokenizer import BYTE_CHARACTERS, vocabulary_size

TEXTS = st.lists(
    st.lists(
        st.sampled_from(
            ["the", " cat", " Sat", " ", "  ", "\n", "\r\n", ".", "'s", " 12", "é", " 東京", "<|endoftext|>"]
        )
        | st.text(max_size=5),
        max_size=30,
    ).map("".join)
)
# as in the tokenizers of many newer models: punctuation takes line ends along, numbers go by threes
NEWER = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def spliced(tokenizer, splitter) -> PreTrainedTokenizerFast:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.pre_tokenizer = splitter
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


def in_another_order(splitter) -> PreTrainedTokenizerFast:
    """A token for each byte, but none of that number."""
    vocabulary = {character: byte + 1 for byte, character in enumerate(BYTE_CHARACTERS)} | {"<|endoftext|>": 0}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer, backend.decoder = splitter, decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


@pytest.fixture(scope="module")
def tokenizers(bytes_tokenizer, bpe_tokenizer):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    newer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(NEWER), "isolated"), byte_level])
    return {
        "bytes": bytes_tokenizer,
        "gpt2": bpe_tokenizer,
        "newer": spliced(bpe_tokenizer, newer),
        "across words": spliced(bpe_tokenizer, byte_level),
        "bytes in another order": in_another_order(byte_level),
    }


@given(texts=TEXTS)
@pytest.mark.parametrize("name", ["bytes", "gpt2", "newer", "across words", "bytes in another order"])
def test_pieces_and_batches_change_nothing(tokenizers, name, texts):
    tokenizer = tokenizers[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", 7)
        patch.setattr(module, "BATCH", 20)
        done: list[int] = []
        encoded = list(encode_documents(tokenizer, iter(texts), advance=done.append))
    assert sum(done) == sum(len(text.encode()) for text in texts)
    assert [text for text, _ in encoded] == texts
    for text, ids in encoded:
        assert ids.dtype == np.uint16
        assert ids.tolist() == tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert 256 not in ids
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(("name", "may_cut"), [("gpt2", True), ("newer", True), ("across words", False)])
def test_texts_are_cut_only_where_no_token_can_cross(tokenizers, name, may_cut):
    backend = module.document_backend(tokenizers[name])
    assert module._never_joins_words(backend) is may_cut
    backend.normalizer = normalizers.Lowercase()
    assert module._never_joins_words(backend) is False


def test_cuts_lie_between_words():
    pieces = list(module._cut_between_words("word " * 5000))
    assert "".join(pieces) == "word " * 5000
    assert all(module.PIECE <= len(piece) < module.PIECE + 5 and piece.endswith("word") for piece in pieces[:-1])
    assert list(module._cut_between_words("x" * 50_000)) == ["x" * 50_000]


def test_padding_and_truncation_of_earlier_calls_do_not_reach_documents(bpe_tokenizer):
    expected = bpe_tokenizer("a cat sat", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    bpe_tokenizer(["a", "a cat"], padding="max_length", max_length=2, truncation=True)
    [(_, ids)] = encode_documents(bpe_tokenizer, ["a cat sat"])
    assert ids.tolist() == expected


def test_a_tokenizer_written_in_python():
    tokenizer = ByT5Tokenizer()
    [(_, ids)] = encode_documents(tokenizer, ["é</s>x"])
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids) == "é</s>x"


def test_a_large_vocabulary_takes_wider_ids():
    words = {f"w{number}": number for number in range(65_537)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert vocabulary_size(tokenizer) == 65_537
    [(_, ids)] = encode_documents(tokenizer, ["w1 w65536"])
    assert ids.dtype == np.uint32
    assert ids.tolist() == [1, 65_536]
