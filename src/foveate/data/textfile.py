"""One file of text: opened whatever its compression, decoded byte for byte, taken apart into documents."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from foveate.errors import FoveateError

JSON_LINES = (".jsonl", ".ndjson", ".jsonlines")
COMPRESSED = (".gz", ".xz", ".zst")
READ_AT_ONCE = 1 << 20
PIECE = 1 << 22
LARGEST_ZSTD_WINDOW = 1 << 31  # as the zstd command allows with --long=31
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """A file whose name says what is in it: ``.jsonl`` (one document a line) or any other text (one document),
    either also compressed as ``.gz``, ``.xz`` or ``.zst``."""

    path: Path

    @property
    def is_json_lines(self) -> bool:
        name = self.path.name.lower()
        if name.endswith(COMPRESSED):
            name = name.rpartition(".")[0]
        return name.endswith(JSON_LINES)

    def documents(self, text_field: str) -> Iterator[str]:
        """Each document's text, newlines and all as they stand in the file.

        Raises:
            FoveateError: the file cannot be read, is damaged, is not UTF-8 text, or a line of it is not a JSON object
                with text in ``text_field``.
        """
        with _named_errors(self.path), _open(self.path) as file:
            if self.is_json_lines:
                yield from _read_lines(self.path, file, text_field)
            else:
                yield _decode(file.read(), str(self.path))

    def pieces(self, text_field: str) -> Iterator[str]:
        """The same text for what need not see whole documents: plain text in megabytes, cut at white space.

        Raises:
            FoveateError: as ``documents``.
        """
        if self.is_json_lines:
            yield from self.documents(text_field)
            return
        with _named_errors(self.path), _open(self.path) as file:
            offset, rest = 0, b""
            while more := file.read(PIECE):
                rest += more
                # ASCII white space is never a part of another character; the mark of UTF-16 has to be seen whole
                cut = max(rest.rfind(b" "), rest.rfind(b"\n"))
                if cut > 1:
                    yield _decode(rest[:cut], str(self.path), offset)
                    offset, rest = offset + cut, rest[cut:]
            yield _decode(rest, str(self.path), offset)

    def fingerprint(self) -> str:
        """Changes with the file's contents, and with how its name says to read them, but not with its place."""
        with _named_errors(self.path), self.path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        compression = self.path.suffix.lower() if self.path.name.lower().endswith(COMPRESSED) else ""
        return f"{'lines' if self.is_json_lines else 'text'}{compression} {digest}"


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except EOFError:
        raise FoveateError(f"{path} is cut short: its compressed data ends too early; fetch it again") from None
    except (lzma.LZMAError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise FoveateError(f"{path} is damaged, or not the {path.suffix} file its name says: {error}") from None
    except OSError as error:
        raise FoveateError(f"{path} cannot be read: {error.strerror or error}") from None


def _open(path: Path) -> BinaryIO:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path)  # type: ignore[return-value]
    if suffix == ".xz":
        return lzma.open(path)  # type: ignore[return-value]
    if suffix == ".zst":
        return io.BufferedReader(_ZstdFile(path.open("rb")), READ_AT_ONCE)
    return path.open("rb")


class _ZstdFile(io.RawIOBase):
    """The library's own reader takes a file that is cut short for a whole one; this one raises EOFError."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame: Any = None
        self._compressed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            self._compressed = self._compressed or self._file.read(1 << 16)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor(max_window_size=LARGEST_ZSTD_WINDOW).decompressobj()
            self._ready = memoryview(self._frame.decompress(self._compressed))
            self._compressed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _decode(raw: bytes, where: str, offset: int = 0) -> str:
    if offset == 0 and raw.startswith(UTF16_MARKS):
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


def _read_lines(path: Path, file: BinaryIO, text_field: str) -> Iterator[str]:
    offset = 0
    for number, raw in enumerate(file, start=1):
        line = _decode(raw.rstrip(b"\r\n"), str(path), offset)
        offset += len(raw)
        if number == 1:
            line = line.removeprefix("\ufeff")
        if line and not line.isspace():
            yield _text_of(line, f"{path}, line {number}", text_field)


def _text_of(line: str, where: str, text_field: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise FoveateError(f"{where} is not JSON: {error.msg} (character {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets nested as deep
        raise FoveateError(f"{where} is not JSON that can be read: {error}") from None
    if not isinstance(row, dict):
        raise FoveateError(f'{where} is no JSON object; write one object a line, as in {{"{text_field}": "..."}}')
    if text_field not in row:
        fields = ", ".join(map(repr, row))[:200] or "none at all"
        raise FoveateError(
            f"{where} has no field {text_field!r}; its fields are {fields}; choose one with --text-field"
        )
    text = row[text_field]
    if not isinstance(text, str):
        raise FoveateError(f"{where}: the field {text_field!r} holds {json.dumps(text)[:40]}, not text")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise FoveateError(
                f"{where}: character {error.start} of {text_field!r} is half a surrogate pair, which is not text"
            ) from None
    return text
