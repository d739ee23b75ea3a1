"""One file of text: opened whatever its compression, decoded byte for byte, taken apart into documents."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from foveate.data.rows import decode, read_array, read_csv, read_lines, read_parquet
from foveate.errors import FoveateError

KINDS = {  # what the end of a name says
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".jsonlines": "lines",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
READERS = {"lines": read_lines, "json": read_array, "csv": read_csv}
COMPRESSED = (".gz", ".xz", ".zst")
READ_AT_ONCE = 1 << 20
PIECE = 1 << 22
LARGEST_ZSTD_WINDOW = 1 << 31  # as the zstd command allows with --long=31


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """A file whose name says what is in it: many documents, as ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or
    ``.parquet``, or any other text, which is one. All but Parquet also compressed: ``.gz``, ``.xz`` or ``.zst``."""

    path: Path

    @property
    def kind(self) -> str:
        """``text``, or of rows: ``lines``, ``json``, ``csv``, ``parquet``."""
        name = self.path.name.lower()
        if name.endswith(COMPRESSED):
            name = name.rpartition(".")[0]
        return KINDS.get(Path(name).suffix, "text")

    def documents(self, text_field: str) -> Iterator[str]:
        """Each document's text, newlines and all as they stand in the file.

        Raises:
            FoveateError: the file cannot be read, is damaged, is not UTF-8 text, or a row of it has no text in
                ``text_field``.
        """
        if self.kind == "parquet":
            with _named_errors(self.path):
                yield from read_parquet(self.path, text_field)
            return
        with _named_errors(self.path), _open(self.path) as file:
            if self.kind == "text":
                yield decode(file.read(), str(self.path))
            else:
                yield from READERS[self.kind](self.path, file, text_field)

    def pieces(self, text_field: str) -> Iterator[str]:
        """The same text for what need not see whole documents: plain text in megabytes, cut at white space.

        Raises:
            FoveateError: as ``documents``.
        """
        if self.kind != "text":
            yield from self.documents(text_field)
            return
        with _named_errors(self.path), _open(self.path) as file:
            offset, rest = 0, b""
            while more := file.read(PIECE):
                rest += more
                # ASCII white space is never a part of another character; the mark of UTF-16 has to be seen whole
                cut = max(rest.rfind(b" "), rest.rfind(b"\n"))
                cut -= rest[cut - 1 : cut] == b"\r"  # a line end stays whole
                if cut > 1:
                    yield decode(rest[:cut], str(self.path), offset)
                    offset, rest = offset + cut, rest[cut:]
            yield decode(rest, str(self.path), offset)

    def fingerprint(self) -> str:
        """Changes with the file's contents, and with how its name says to read them, but not with its place."""
        with _named_errors(self.path), self.path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        compression = self.path.suffix.lower() if self.path.name.lower().endswith(COMPRESSED) else ""
        return f"{self.kind}{compression} {digest}"


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
