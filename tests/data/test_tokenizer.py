"""Our tokenizers give every text back; others are made ready, or refused in one line."""

import json
import shutil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from foveate.data import tokenizer as module
from foveate.data.documents import read_documents
from foveate.data.tokenizer import END_OF_TEXT, load_tokenizer, make_tokenizer, vocabulary_size
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


@settings(deadline=None)
@given(text=st.text() | st.lists(st.sampled_from([*AWKWARD, "the ", "\n", " ", "'s"])).map("".join))
@example(text="<|endoftext|>")
@example(text="x" * 5000 + "\r\n" * 99)
def test_round_trip(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < vocabulary_size(tokenizer) for token in ids)


@settings(deadline=None)
@given(raw=st.binary())
def test_ids_of_bytes_are_the_bytes(bytes_tokenizer, raw):
    text = raw.decode("utf-8", "ignore")
    assert bytes(bytes_tokenizer(text, split_special_tokens=True)["input_ids"]) == text.encode()
    assert bytes_tokenizer.decode(list(raw)) == raw.decode("utf-8", "replace")


def test_special_tokens_and_padding(tokenizer):
    assert tokenizer.convert_tokens_to_ids(END_OF_TEXT) == 256
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id == 256
    batch = tokenizer(["a", "abc"], padding=True)
    assert batch["attention_mask"][0][0] == 0
    assert batch["input_ids"][0][0] == 256
    assert tokenizer.decode([256, 97, 256], skip_special_tokens=True) == "a"


def test_sizes(bytes_tokenizer, bpe_tokenizer):
    assert len(bytes_tokenizer) == vocabulary_size(bytes_tokenizer) == 257
    assert len(bpe_tokenizer) == vocabulary_size(bpe_tokenizer) == 400
    assert make_tokenizer("bpe:257", lambda: ["text"]).get_vocab() == bytes_tokenizer.get_vocab()


def test_bpe_learns_words_but_no_special_token(bpe_tokenizer):
    assert len(bpe_tokenizer(" cats sat")["input_ids"]) == 2
    spelled = bpe_tokenizer(END_OF_TEXT * 3, split_special_tokens=True)["input_ids"]
    assert 256 not in spelled
    assert bpe_tokenizer.decode(spelled) == END_OF_TEXT * 3


def test_bpe_of_a_short_text_has_fewer_ids_and_says_so(capsys):
    tokenizer = make_tokenizer("bpe:1000", lambda: ["abab abab"])
    assert 257 < len(tokenizer) < 300
    assert tokenizer.decode(tokenizer("a new text\r\n")["input_ids"]) == "a new text\r\n"
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
        assert loaded.decode(loaded(text)["input_ids"]) == text
        assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (256, 256, 256)
        assert loaded.padding_side == "left"


def test_a_tokenizer_without_end_of_text_gets_one(tmp_path):
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 7}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        tokenizer = make_tokenizer(str(path), no_texts)
        assert tokenizer("a b c")["input_ids"] == [1, 7, 0]
        assert tokenizer.eos_token == tokenizer.pad_token == END_OF_TEXT
        assert tokenizer.padding_side == "left"
        assert tokenizer.eos_token_id < vocabulary_size(tokenizer)
        assert vocabulary_size(tokenizer) > 7


def test_a_tokenizer_keeps_the_end_of_text_it_has(tmp_path):
    words = Tokenizer(models.WordLevel({"</s>": 0, "a": 1, "<pad>": 2}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>").save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, vocabulary_size(tokenizer)) == (0, 2, 3)


@pytest.mark.parametrize(
    "kind", ["bpe:", "bpe:0", "bpe:100", "bpe:256", "bpe:x", "bpe:-5", "bpe:1e3", "bpe:99999999", "bpe:²"]
)
def test_bpe_of_an_impossible_size(kind):
    assert f"tokenizer '{kind}': N in bpe:N is the number of ids, from 257 to" in error_of(kind)


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
