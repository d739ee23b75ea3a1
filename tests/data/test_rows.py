"""Tables and arrays: what their own libraries wrote is read back text for text, and a broken row is named."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from foveate.data.textfile import TextFile
from foveate.errors import FoveateError

TEXTS = ["One\r\ntwo\n", "", 'say "x", then\ty', " naïve 漢字 🙂 ", "a" * 200_000, "last\r"]
ROWS = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]


def write_csv(path: Path, dialect: str = "excel") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text"], dialect=dialect)
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import Table, parquet

    parquet.write_table(Table.from_pylist(ROWS), path, row_group_size=2)


WRITERS = {
    "a.json": lambda path: path.write_text(json.dumps(ROWS)),
    "indented.json": lambda path: path.write_text("\ufeff" + json.dumps(ROWS, indent=1, ensure_ascii=False)),
    "texts.json": lambda path: path.write_text(json.dumps(TEXTS)),
    "a.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "a.csv": write_csv,
    "a.TSV": lambda path: write_csv(path, "excel-tab"),
    "a.parquet": write_parquet,
}


def read(path: Path, text_field: str = "text") -> list[str]:
    return list(TextFile(path=path).documents(text_field))


def error_of(path: Path, content: str | bytes, text_field: str = "text") -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(FoveateError) as caught:
        read(path, text_field)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", WRITERS)
def test_every_row_is_a_document(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert read(tmp_path / name) == TEXTS
    assert list(TextFile(path=tmp_path / name).pieces("text")) == TEXTS


def test_one_object_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"text": "x", "body": "y"}')
    assert read(tmp_path / "a.json") == ["x"]
    assert read(tmp_path / "a.json", "body") == ["y"]


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.json", '{"text": "a"}\n{"text": "b"}\n', "Extra data (line 2, character 1); a file of several values"),
        ("a.json", '["a", 3]', "item 2 holds 3, neither an object nor text"),
        ("a.json", '[{"text": "a"}, {"body": "b"}]', "item 2 has no field 'text'; its fields are 'body'"),
        ("a.json", '[{"text": ["a"]}]', "item 1: the field 'text' holds [\"a\"], not text"),
        ("a.json", '"text"', "holds no JSON array"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.json", '["\\ud83d"]', "half a surrogate pair"),
        ("a.json", b'["caf\xe9"]', "byte 5 is 0xe9"),
        ("a.csv", "id,body\n1,x\n", "has no column 'text'; its columns are 'id', 'body'; choose one with --text-field"),
        ("a.csv", "id,text\n1,x\n2\n", "row 2 ends before its column 'text'"),
        ("a.csv", 'id,text\n1,"x\n', "is not CSV: unexpected end of data"),
        ("a.csv", b"id,text\n1,caf\xe9\n", "byte 13 is 0xe9"),
        ("a.parquet", b"PAR1 and no more", "is not a whole Parquet file"),
        ("a.parquet", b"", "is not a whole Parquet file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, content: Any, part: str) -> None:
    assert part in error_of(tmp_path / name, content)


def test_a_parquet_file_without_text(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import Table, parquet

    parquet.write_table(Table.from_pylist([{"text": "x", "n": 1}, {"text": None, "n": 2}]), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    assert "row 2: the field 'text' holds null" in error_of(tmp_path / "a.parquet", whole)
    assert "row 1: the field 'n' holds 1" in error_of(tmp_path / "a.parquet", whole, "n")
    assert "its columns are 'text', 'n'" in error_of(tmp_path / "a.parquet", whole, "body")
    assert "not a whole Parquet file" in error_of(tmp_path / "a.parquet", whole[:-20])
