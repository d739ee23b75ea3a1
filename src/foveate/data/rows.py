"""Files of many documents: JSON lines, a JSON array, a table of comma-separated values, Parquet.

Each reader gives the text of one row after the other, and names the row where there is none.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from foveate.errors import FoveateError

ROWS_AT_ONCE = 256
CHOOSE = "choose one with --text-field"
MAX_CELL = 1 << 30


def decode(raw: bytes, where: str, offset: int = 0) -> str:
    """Bytes as UTF-8 text. Raises FoveateError where they are not, with the number of the byte."""
    if offset == 0 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FoveateError(f"{where} is UTF-16 text; save it as UTF-8")
    if (at := raw.find(b"\0")) >= 0:
        raise FoveateError(f"{where} is not text: byte {offset + at} is NUL, as in a binary file")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FoveateError(
            f"{where} is not UTF-8: byte {offset + error.start} is 0x{raw[error.start]:02x} ({error.reason}); "
            f"save it as UTF-8"
        ) from None


def read_lines(path: Path, file: BinaryIO, text_field: str) -> Iterator[str]:
    """One JSON object a line."""
    offset = 0
    for number, raw in enumerate(file, start=1):
        line = decode(raw.rstrip(b"\r\n"), str(path), offset)
        offset += len(raw)
        if number == 1:
            line = line.removeprefix("\ufeff")
        if line and not line.isspace():
            where = f"{path}, line {number}"
            row = _parse(line, where)
            if not isinstance(row, dict):
                raise FoveateError(
                    f'{where} is no JSON object; write one object a line, as in {{"{text_field}": "..."}}'
                )
            yield _text_of(row, where, text_field)


def read_array(path: Path, file: BinaryIO, text_field: str) -> Iterator[str]:
    """An array of objects or of texts, or one object alone."""
    rows = _parse(decode(file.read(), str(path)).removeprefix("\ufeff"), str(path))
    if isinstance(rows, dict):
        rows = [rows]
    if not isinstance(rows, list):
        raise FoveateError(f"{path} holds no JSON array; name a file of text .txt, one of JSON lines .jsonl")
    for number, row in enumerate(rows, start=1):
        where = f"{path}, item {number}"
        if not isinstance(row, dict | str):
            raise FoveateError(f"{where} holds {json.dumps(row)[:40]}, neither an object nor text")
        yield _text_of(row if isinstance(row, dict) else {text_field: row}, where, text_field)


def read_csv(path: Path, file: BinaryIO, text_field: str) -> Iterator[str]:
    """A table whose first line names its columns; line ends inside quotes stay as they are."""
    csv.field_size_limit(MAX_CELL)  # of all readers: the library has no other place for it
    separator = "\t" if ".tsv" in path.name.lower() else ","
    rows = csv.DictReader(_decoded_lines(path, file), delimiter=separator, strict=True)
    try:
        columns = [name.removeprefix("\ufeff") for name in rows.fieldnames or []]
        rows.fieldnames = columns
        if columns and text_field not in columns:
            raise FoveateError(f"{path} has no column {text_field!r}; its columns are {_listed(columns)}; {CHOOSE}")
        for number, row in enumerate(rows, start=1):
            if row[text_field] is None:
                raise FoveateError(f"{path}, row {number} ends before its column {text_field!r}")
            yield row[text_field]
    except csv.Error as error:
        raise FoveateError(f"{path}, line {rows.line_num} is not CSV: {error}") from None


def read_parquet(path: Path, text_field: str) -> Iterator[str]:
    """One column of an Apache Parquet file, a few rows at once."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise FoveateError(f"{path}: this takes the package pyarrow; install foveate[hub]") from None
    try:
        with parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if text_field not in columns:
                raise FoveateError(f"{path} has no column {text_field!r}; its columns are {_listed(columns)}; {CHOOSE}")
            number = 0
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=[text_field]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    yield _checked(text, f"{path}, row {number}", text_field)
    except ArrowException as error:
        raise FoveateError(f"{path} is not a whole Parquet file: {' '.join(str(error).split())[:200]}") from None


def _decoded_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    offset = 0
    for raw in file:
        yield decode(raw, str(path), offset)
        offset += len(raw)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        several = error.msg == "Extra data"
        hint = "; a file of several values, one a line, is to be named .jsonl" if several and "\n" in text else ""
        at = f"line {error.lineno}, character {error.colno}" if "\n" in text else f"character {error.colno}"
        raise FoveateError(f"{where} is not JSON: {error.msg} ({at}){hint}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets nested as deep
        raise FoveateError(f"{where} is not JSON that can be read: {error}") from None


def _text_of(row: dict[str, Any], where: str, text_field: str) -> str:
    if text_field not in row:
        raise FoveateError(f"{where} has no field {text_field!r}; its fields are {_listed(list(row))}; {CHOOSE}")
    return _checked(row[text_field], where, text_field)


def _checked(text: Any, where: str, text_field: str) -> str:
    if not isinstance(text, str):
        shown = json.dumps(text, default=lambda value: type(value).__name__)[:40]
        raise FoveateError(f"{where}: the field {text_field!r} holds {shown}, not text")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise FoveateError(
                f"{where}: character {error.start} of {text_field!r} is half a surrogate pair, which is not text"
            ) from None
    return text


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))[:200] or "none at all"
