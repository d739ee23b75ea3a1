"""Files of every kind are read byte for byte, and every broken one is named in one line."""

import gzip
import json
import lzma
from pathlib import Path

import pytest
import zstandard

from foveate.data import textfile
from foveate.data.textfile import TextFile
from foveate.errors import FoveateError

TEXT = "One\r\ntwo\n\n three\ttabs\x0c \u2028 naïve 漢字 🙂\r"
COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda raw: zstandard.ZstdCompressor().compress(raw),
}


def write(path: Path, raw: bytes) -> TextFile:
    path.write_bytes(raw)
    return TextFile(path=path)


def read(file: TextFile, text_field: str = "text") -> list[str]:
    return list(file.documents(text_field))


def error_of(file: TextFile, text_field: str = "text") -> str:
    with pytest.raises(FoveateError) as caught:
        read(file, text_field)
    message = str(caught.value)
    assert str(file.path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_text_file_is_one_document_byte_for_byte(tmp_path, suffix):
    assert read(write(tmp_path / f"a.txt{suffix}", COMPRESS[suffix](TEXT.encode()))) == [TEXT]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
def test_pieces_are_the_text_cut_at_white_space(tmp_path, monkeypatch, size):
    monkeypatch.setattr(textfile, "PIECE", size)
    pieces = list(write(tmp_path / "a.txt", TEXT.encode()).pieces("text"))
    assert "".join(pieces) == TEXT
    assert all(piece[0] in " \r\n" for piece in pieces[1:] if piece)
    assert not any(piece.endswith("\r") for piece in pieces[:-1]), "a line end is cut in two"
    assert (len(pieces) > 3) == (size < 8)


@pytest.mark.parametrize("raw", ["漢 字".encode("utf-16"), b"a\xffb", b"one two \0", b"some words \xff"])
def test_pieces_fail_as_documents_do(tmp_path, monkeypatch, raw):
    monkeypatch.setattr(textfile, "PIECE", 4)
    file = write(tmp_path / "a.txt", raw)
    with pytest.raises(FoveateError) as caught:
        list(file.pieces("text"))
    assert str(caught.value) == error_of(file)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", COMPRESS)
def test_each_json_line_is_a_document(tmp_path, suffix, ending):
    lines = [json.dumps({"id": 1, "text": TEXT}), "", json.dumps({"text": ""}), '{"text": "\\u00e9\\u0000"}']
    raw = "\ufeff" + ending.join(lines)
    assert read(write(tmp_path / f"a.JSONL{suffix}", COMPRESS[suffix](raw.encode()))) == [TEXT, "", "é\0"]


def test_another_field_can_hold_the_text(tmp_path):
    assert read(write(tmp_path / "a.ndjson", b'{"body": "x", "text": 3}'), "body") == ["x"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_members_of_a_file_follow_one_another(tmp_path, suffix):
    parts = [COMPRESS[suffix](part.encode()) for part in ("ab", "", "c" * 100_000)]
    assert read(write(tmp_path / f"a.txt{suffix}", b"".join(parts))) == ["ab" + "c" * 100_000]


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_a_compressed_file_cut_short(tmp_path, suffix, kind, kept):
    raw = b"".join(json.dumps({"text": f"{i * i}"}).encode() + b"\n" for i in range(5_000))
    whole = COMPRESS[suffix](raw)
    message = error_of(write(tmp_path / f"a.{kind}{suffix}", whole[: int(len(whole) * kept)]))
    assert "cut short" in message


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_a_file_that_is_not_what_its_name_says(tmp_path, suffix):
    assert f"not the {suffix} file" in error_of(write(tmp_path / f"a.txt{suffix}", b"just some plain text"))


def test_binary_and_wrongly_encoded_files_are_named_with_the_byte(tmp_path):
    assert "byte 3 is NUL" in error_of(write(tmp_path / "a.png", b"abc\0def"))
    assert "byte 0 is NUL" in error_of(write(tmp_path / "c.bin", b"\0abc"))
    assert "byte 6 is 0xe9" in error_of(write(tmp_path / "a.txt", "abc déf".replace("d", "dd").encode("latin-1")))
    assert "UTF-16" in error_of(write(tmp_path / "b.txt", "abc".encode("utf-16")))
    lines = b'{"text": "good"}\n{"text": "caf\xe9"}\n'
    assert f"byte {lines.index(0xE9)} is 0xe9" in error_of(write(tmp_path / "a.jsonl", lines))
    assert "byte 20 is NUL" in error_of(write(tmp_path / "b.jsonl", b'{"text": "good"}\nabc\0'))


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('{"text": "cut', "is not JSON: Unterminated string starting at (character 10)"),
        ("[" * 100_000, "is not JSON"),
        ('{"text": ' + "1" * 5000 + "}", "is not JSON"),
        ('["text"]', "is no JSON object"),
        ('{"title": "x", "body": "y"}', "has no field 'text'; its fields are 'title', 'body'"),
        ('{"a\\nb\\ud83d": 1}', "its fields are 'a\\nb\\ud83d'"),
        ("{}", "has no field 'text'; its fields are none at all"),
        ('{"text": null}', "holds null, not text"),
        ('{"text": {"a": 1}}', "not text"),
        ('{"text": "ab\\ud83d"}', "character 2 of 'text' is half a surrogate pair"),
    ],
)
def test_a_bad_json_line_is_named_by_its_number(tmp_path, line, part):
    message = error_of(write(tmp_path / "a.jsonl", f'{{"text": "fine"}}\n\n{line}\n'.encode()))
    assert "line 3" in message
    assert part in message


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_file_that_went_away(tmp_path, suffix):
    assert "No such file" in error_of(TextFile(path=tmp_path / f"a.txt{suffix}"))


def test_the_fingerprint_follows_contents_and_kind_but_not_the_place(tmp_path):
    one = write(tmp_path / "one.txt", b"{}").fingerprint()
    assert write(tmp_path / "two.md", b"{}").fingerprint() == one
    assert write(tmp_path / "one.txt", b"{ }").fingerprint() != one
    assert write(tmp_path / "one.jsonl", b"{}").fingerprint() != one
    assert write(tmp_path / "one.txt.gz", b"{}").fingerprint() != one
