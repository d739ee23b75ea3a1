"""Streams give whole characters, and together exactly the text of the tokens."""

from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from foveate.data.decode import LONGEST, TextDecoder, decode_text
from foveate.data.prompt import encode_text

WHOLE = st.text(st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"]))


@given(text=WHOLE, cut=st.integers(0, 3))
@example(text="日本語", cut=1)
def test_no_whole_character_is_lost(tokenizer, text, cut):
    ids = encode_text(tokenizer, text)
    decoder = TextDecoder(tokenizer, [256])
    pieces = [decoder.push(token) for token in ids[: max(0, len(ids) - cut)]]
    raw = b"".join(bytes_of(tokenizer, token) for token in ids[: max(0, len(ids) - cut)])
    assert "".join(pieces) == decoder.text == raw.decode(errors="ignore")


def bytes_of(tokenizer, token: int) -> bytes:
    """By the definition of byte-level tokens, which the decoder knows nothing of."""
    from foveate.data.tokenizer import BYTE_CHARACTERS

    return bytes(map(BYTE_CHARACTERS.index, tokenizer.convert_ids_to_tokens(token)))


@given(raw=st.binary(max_size=150))
@example(raw=b"\xff" * 100 + b"a")
@example(raw=b"\xe8\xaa" * 60 + b"abc")
def test_bytes_that_are_no_text_are_shown_as_such(bytes_tokenizer, raw):
    shown, whole = decode_text(bytes_tokenizer, raw, [256]), raw.decode(errors="replace")
    assert whole.startswith(shown)
    assert set(whole[len(shown) :]) <= {"\ufffd"}
    assert len(whole) - len(shown) <= 3


def test_characters_come_as_soon_as_they_are_whole(bytes_tokenizer):
    decoder = TextDecoder(bytes_tokenizer)
    assert [decoder.push(byte) for byte in "é東x".encode()] == ["", "é", "", "", "東", "x"]


def test_tokens_that_reach_over_characters():
    """Each token ends one character and begins the next, so that none ends where a character does."""
    text = "語日" * LONGEST
    raw = text.encode()
    from foveate.data.tokenizer import BYTE_CHARACTERS

    names = ["".join(BYTE_CHARACTERS[byte] for byte in raw[at : at + 3]) for at in range(1, len(raw), 3)]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys([BYTE_CHARACTERS[raw[0]], *names]))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.decoder = decoders.ByteLevel()
    ids = [vocabulary[BYTE_CHARACTERS[raw[0]]], *(vocabulary[name] for name in names)]
    assert decode_text(PreTrainedTokenizerFast(tokenizer_object=backend), ids) == text


def test_spaces_that_the_first_token_of_a_text_has_not():
    """As in sentencepiece's tokenizers: a word's space is written unless it is the first; a byte is a token."""
    words = {"▁a": 0, "▁b": 1, "c": 2, **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)}}
    backend = Tokenizer(models.BPE(vocab=words, merges=[], byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    ids = [0, 1, 2, *(3 + byte for byte in "語é".encode()), 0]
    decoder = TextDecoder(tokenizer)
    assert [decoder.push(token) for token in ids] == ["a", " b", "c", "", "", "語", "", "é", " a"]
    assert decode_text(tokenizer, ids[:-1], before=[1]) == " a bc語é"
    assert decode_text(tokenizer, ids[:5]) == "a bc"


def test_marks_are_no_text(bytes_tokenizer):
    assert decode_text(bytes_tokenizer, [97, 256, 98, 257]) == "ab"
