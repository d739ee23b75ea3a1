"""Our tokenizers give every text back; others are made ready, or refused in one line."""

import json
import shutil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from foveate.data import tokenizer as module
from foveate.data.documents import read_documents
from foveate.data.tokenizer import END_OF_TEXT, PADDING, load_tokenizer, make_tokenizer, vocabulary_size
from foveate.errors import FoveateError

AWKWARD = [
    "",
    "\r\n",
    "a\r\nb\r",
    " lead",
    "trail ",
    "\0\x7f",
    "it's  <|endoftext|> here",
    "é\u0301🙂漢字\ufeff\u2028",
    "Ġ Ċ",
]


def no_texts():
    raise AssertionError("this tokenizer needs no text")


def error_of(kind: str, texts=no_texts) -> str:
    with pytest.raises(FoveateError) as caught:
        make_tokenizer(kind, texts)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def plain(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@given(text=st.text() | st.lists(st.sampled_from([*AWKWARD, "the ", "\n", " ", "'s"])).map("".join))
@example(text="<|endoftext|>")
@example(text="x" * 5000 + "\r\n" * 99)
def test_round_trip(tokenizer, text):
    mark, *ids = tokenizer(text)["input_ids"]
    assert mark == 256
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < vocabulary_size(tokenizer) for token in ids)


@given(raw=st.binary())
def test_ids_of_bytes_are_the_bytes(bytes_tokenizer, raw):
    text = raw.decode("utf-8", "ignore")
    assert bytes(plain(bytes_tokenizer, text)) == text.encode()
    assert bytes_tokenizer.decode(list(raw)) == raw.decode("utf-8", "replace")


def test_special_tokens_and_padding(tokenizer):
    assert tokenizer.convert_tokens_to_ids(END_OF_TEXT) == 256
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == 256
    assert tokenizer.convert_tokens_to_ids(PADDING) == tokenizer.pad_token_id == 257
    batch = tokenizer(["a", "abc"], padding=True)
    assert batch["attention_mask"][0] == [0] * (len(batch["input_ids"][1]) - 2) + [1, 1]
    assert batch["input_ids"][0][-3:] == [257, 256, 97]
    assert tokenizer.decode([257, 256, 97, 256], skip_special_tokens=True) == "a"


def test_the_standard_collator_leaves_the_end_of_text_to_be_learned(tokenizer):
    rows = [tokenizer(text + END_OF_TEXT) for text in ("a", "abc")]
    labels = DataCollatorForLanguageModeling(tokenizer, mlm=False)(rows)["labels"].tolist()
    assert [row[-1] for row in labels] == [256, 256]
    assert labels[0][0] == -100  # padding alone is left out


def test_a_tokenizer_saved_before_there_was_padding_goes_on_loading(tmp_path):
    """As 0.1 saved them: 257 ids, the mark for padding, nothing before a text."""
    vocabulary = {character: byte for byte, character in enumerate(module.BYTE_CHARACTERS)} | {END_OF_TEXT: 256}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT)
    PreTrainedTokenizerFast(tokenizer_object=backend, **special, padding_side="left").save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.pad_token_id, vocabulary_size(tokenizer)) == (256, 257)  # the model has no row for another id
    assert tokenizer("ab")["input_ids"] == [256, 97, 98]


def test_sizes(bytes_tokenizer, bpe_tokenizer):
    assert len(bytes_tokenizer) == vocabulary_size(bytes_tokenizer) == 258
    assert len(bpe_tokenizer) == vocabulary_size(bpe_tokenizer) == 400
    assert make_tokenizer("bpe:258", lambda: ["text"]).get_vocab() == bytes_tokenizer.get_vocab()


def test_bpe_learns_words_but_no_special_token(bpe_tokenizer):
    assert len(plain(bpe_tokenizer, " cats sat")) == 2
    spelled = plain(bpe_tokenizer, END_OF_TEXT * 3)
    assert 256 not in spelled
    assert bpe_tokenizer.decode(spelled) == END_OF_TEXT * 3


def test_bpe_of_a_short_text_has_fewer_ids_and_says_so(capsys):
    tokenizer = make_tokenizer("bpe:1000", lambda: ["abab abab"])
    assert 258 < len(tokenizer) < 300
    assert tokenizer.decode(plain(tokenizer, "a new text\r\n")) == "a new text\r\n"
    assert f"enough for {len(tokenizer)} of 1000 ids" in capsys.readouterr().err


def test_training_again_gives_the_same_tokenizer(bpe_tokenizer, sample):
    again = make_tokenizer("bpe:400", lambda: iter(sample), progress=False)
    assert again.backend_tokenizer.to_str() == bpe_tokenizer.backend_tokenizer.to_str()


def test_a_long_text_is_sampled_evenly(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE_CHARACTERS", 1000)
    monkeypatch.setattr(module, "SAMPLE_PIECE", 10)
    texts = [f"{number:04d}" * 7 for number in range(2000)]
    sample = module._sample(iter(texts))
    assert 1000 <= sum(map(len, sample)) <= 2000
    assert set(sample) <= {text[at : at + 10] for text in texts for at in (0, 10, 20)}
    thousands = [sum(piece.startswith(str(digit)) for piece in sample if len(piece) == 8) for digit in (0, 1)]
    assert abs(thousands[0] - thousands[1]) <= 2
    assert module._sample(iter(texts[:60])) == [text[at : at + 10] for text in texts[:60] for at in (0, 10, 20)]


def test_a_saved_tokenizer_comes_back_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "foveate", "architectures": ["FoveateForCausalLM"]}')
    text = "It's <|endoftext|>\r\n naïve"
    for loaded in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert loaded.decode(loaded(text)["input_ids"]) == END_OF_TEXT + text
        assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (256, 256, 257)
        assert loaded.padding_side == "left"


def test_a_tokenizer_without_end_of_text_gets_one(tmp_path):
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 7}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        tokenizer = make_tokenizer(str(path), no_texts)
        assert tokenizer("a b c")["input_ids"] == [1, 7, 0]
        assert (tokenizer.eos_token, tokenizer.pad_token) == (END_OF_TEXT, PADDING)
        assert load_tokenizer(path).pad_token == END_OF_TEXT  # of a model that is there
        assert tokenizer.padding_side == "left"
        assert tokenizer.eos_token_id < vocabulary_size(tokenizer)
        assert vocabulary_size(tokenizer) > 7


def test_a_tokenizer_keeps_the_end_of_text_it_has(tmp_path):
    words = Tokenizer(models.WordLevel({"</s>": 0, "a": 1, "<pad>": 2}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>").save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, vocabulary_size(tokenizer)) == (0, 2, 3)


@pytest.mark.parametrize(
    "kind", ["bpe:", "bpe:0", "bpe:100", "bpe:257", "bpe:x", "bpe:-5", "bpe:1e3", "bpe:99999999", "bpe:²"]
)
def test_bpe_of_an_impossible_size(kind):
    assert f"tokenizer '{kind}': N in bpe:N is the number of ids, from 258 to" in error_of(kind)


def test_bpe_without_text():
    assert "no text to learn it from" in error_of("bpe:300", list)
    assert "no text to learn it from" in error_of("bpe:300", lambda: [""])


def test_errors_in_the_text_pass_through():
    assert "no such file" in error_of("bpe:300", lambda: read_documents(["/nope"]))


def test_tokenizers_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "hub_is_reachable", lambda: False)
    assert "no such file or folder; write bytes, bpe:4096" in error_of(str(tmp_path / "nope"))
    assert "no such file or folder" in error_of("")
    assert "nor can it be had from the hub" in error_of("byte")
    assert "nor can it be had from the hub" in error_of("some/name")
    assert "holds no tokenizer" in error_of(str(tmp_path))


def test_tokenizers_that_are_broken(bpe_tokenizer, tmp_path):
    (tmp_path / "some.json").write_text("{}")
    assert "cannot be loaded" in error_of(str(tmp_path / "some.json"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        folder = tmp_path / name.partition(".")[0]
        bpe_tokenizer.save_pretrained(folder)
        whole = (folder / name).read_text()
        (folder / name).write_text(whole[: len(whole) // 2])
        assert "cannot be loaded" in error_of(str(folder))
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(b"\x0a\x0b")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert "sentencepiece" in error_of(str(folder))
