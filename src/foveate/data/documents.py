"""Documents out of whatever the user names: files, folders, globs, datasets on the hub, the bundled books."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from foveate.data.hub import PREFIX, HubDataset, is_saved_dataset
from foveate.data.reading import AS_IT_IS, Reading, say
from foveate.data.textfile import TextFile
from foveate.errors import FoveateError

BOOKS = "books"
BOOKS_FILE = Path(__file__).parent / "books" / "books.jsonl.xz"

Source = TextFile | HubDataset


def read_documents(
    data: Sequence[str], *, reading: Reading = AS_IT_IS, note: Callable[[str], Any] = say
) -> Iterator[str]:
    """The documents of ``data``, in its order; none is empty.

    Args:
        data: any of: a text file (one document, kept byte for byte); a file of many, ``.jsonl`` (one a line),
            ``.json`` (an array), ``.csv``, ``.tsv`` or ``.parquet``; each but the last also ``.gz``, ``.xz`` or
            ``.zst``; a folder (all files below it, by name, hidden ones left out), or one that ``save_to_disk`` of the
            datasets library has made; a glob;
            ``hf:NAME[:CONFIG][:SPLIT]``, a Hugging Face dataset; ``books``, the bundled books (for a folder of that
            name write ``./books``).
        reading: which field holds the text, and what becomes of line ends and of files that cannot be read.
        note: told in a line of each file that is left out.

    Raises:
        FoveateError: at once where something is missing, and while reading where something cannot be read as text or
            an entry of ``data`` has no text at all.
    """
    found = [(name, find_sources(name)) for name in as_names(data)]
    return _read(found, lambda source: source.documents(reading.text_field), reading, note)


def _read(
    found: list[tuple[str, list[Source]]],
    texts_of: Callable[[Source], Iterator[str]],
    reading: Reading,
    note: Callable[[str], Any],
) -> Iterator[str]:
    for name, sources in found:
        has_text = False
        for source in sources:
            for text in readable(texts_of(source), reading, note):
                if text:
                    has_text = has_text or not text.isspace()
                    yield text
        if not has_text:
            raise FoveateError(f"data {name!r} has no text: it is empty, or all white space")


def readable(texts: Iterator[str], reading: Reading, note: Callable[[str], Any] = say) -> Iterator[str]:
    """The texts of one source, as ``reading`` has them: up to where it cannot be read, if that is to be left out."""
    try:
        for text in texts:
            yield reading.text(text)
    except FoveateError as error:
        if not reading.skip_unreadable:
            raise
        note(f"left out: {error}")


def read_pieces(data: Sequence[str], *, reading: Reading = AS_IT_IS) -> Iterator[str]:
    """The text of ``read_documents`` without holding a document of plain text in memory: cut at white space.

    Raises:
        FoveateError: as ``read_documents``.
    """
    found = [(name, find_sources(name)) for name in as_names(data)]
    return _read(found, lambda source: source.pieces(reading.text_field), reading, say)


def fingerprint(data: Sequence[str], *, reading: Reading = AS_IT_IS) -> str:
    """A digest of everything ``read_documents`` would read: equal contents give an equal one, wherever they lie."""
    digest = hashlib.blake2b(digest_size=16)
    for name in as_names(data):
        for source in find_sources(name):
            try:
                known = source.fingerprint()
            except FoveateError:
                if not reading.skip_unreadable:
                    raise
                known = "unreadable"
            digest.update(known.encode() + b"\n")
    return digest.hexdigest()


def as_names(data: Sequence[str]) -> list[str]:
    """``data`` as a list, also where it is a single name. Raises FoveateError where it is empty."""
    names = [data] if isinstance(data, str | Path) else list(data)
    if not names:
        raise FoveateError("no data is given; name a text file, a folder, a .jsonl file, or 'books'")
    return [str(name) for name in names]


def find_sources(name: str) -> list[Source]:
    """The files, in a fixed order, or the dataset that one entry of ``data`` means.

    Raises:
        FoveateError: there is nothing of that name.
    """
    if name == BOOKS:
        return [TextFile(path=BOOKS_FILE)]
    if name.startswith(PREFIX):
        return [HubDataset(name=name)]
    try:
        if name and is_saved_dataset(Path(name).expanduser()):
            return [HubDataset(name=f"{PREFIX}{name}")]
        return [TextFile(path=file) for file in _find_files(name)]
    except OSError as error:
        raise FoveateError(f"data {name!r} cannot be read: {error.strerror or error}") from None


def _find_files(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if name and path.is_dir():  # an empty name would be the current folder
        files = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
        if not files:
            raise FoveateError(f"data {name!r} is a folder without files (hidden ones are left out)")
        return files
    if path.is_file():
        return [path]
    if name and path.exists():
        raise FoveateError(f"data {name!r} is no regular file; text is read more than once, so save it to one")
    if not glob.has_magic(name):
        raise FoveateError(f"data {name!r}: there is no such file or folder")
    matches = glob.glob(str(path), recursive=True)  # noqa: PTH207  (Path.glob takes no absolute pattern)
    files = sorted(file for file in map(Path, matches) if file.is_file())
    if not files:
        raise FoveateError(f"data {name!r}: no file matches this pattern")
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
