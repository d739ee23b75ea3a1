"""How documents are taken out of files: which field holds the text, what becomes of line ends and of broken files.

Imported by the command line at start-up: nothing heavy.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import lru_cache

from foveate.errors import FoveateError

NEWLINES = ("keep", "unix")

TEXT_FIELD_HELP = "field or column that holds the text, of .jsonl, .json, .csv, .parquet and datasets"
NEWLINES_HELP = "keep line ends as they are, or unix: make \\r\\n and \\r into \\n"
SKIP_HELP = "leave out files that cannot be read as text, and list them, instead of stopping"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How to read documents.

    Attributes:
        text_field: the field of JSON objects, or the column of tables and datasets, that holds the text.
        newlines: ``keep`` every byte, or ``unix``: ``\\r\\n`` and a lone ``\\r`` become ``\\n``.
        skip_unreadable: leave out a file, or the rest of one, that cannot be read, instead of raising.
    """

    text_field: str = "text"
    newlines: str = "keep"
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        if self.newlines not in NEWLINES:
            raise FoveateError(f"--newlines: {self.newlines!r} is none of {', '.join(NEWLINES)}")

    def text(self, text: str) -> str:
        """A document as it is to be read."""
        if self.newlines == "unix" and "\r" in text:
            return text.replace("\r\n", "\n").replace("\r", "\n")
        return text


AS_IT_IS = Reading()


def add_reading_arguments(parser: argparse._ActionsContainer) -> None:
    """The flags of ``reading_of``."""
    parser.add_argument("--text-field", default="text", metavar="NAME", help=f"{TEXT_FIELD_HELP} (default: text)")
    parser.add_argument("--newlines", default="keep", metavar="N", help=f"{NEWLINES_HELP} (default: keep)")
    parser.add_argument("--skip-unreadable", action="store_true", help=SKIP_HELP)


def reading_of(args: argparse.Namespace) -> Reading:
    return Reading(text_field=args.text_field, newlines=args.newlines, skip_unreadable=args.skip_unreadable)


@lru_cache(maxsize=1024)
def say(line: str) -> None:
    """A note on standard error, once however often the data is read."""
    print(line, file=sys.stderr)
