"""Split enwik8 as is usual: the first 90 million bytes to train on, 5 million to validate, 5 million to test.

    python experiments/enwik8.py enwik8.xz --out data

The file is http://mattmahoney.net/dc/enwik8.zip, as it is or compressed by xz. A cut falls on the first byte of the
character that it would divide.
"""

from __future__ import annotations

import argparse
import lzma
from pathlib import Path

PARTS = {"train": 90_000_000, "valid": 95_000_000, "test": 100_000_000}  # where each ends


def character_start(text: bytes, place: int) -> int:
    """The start of the character that ``place`` falls in."""
    while place < len(text) and text[place] & 0b1100_0000 == 0b1000_0000:
        place -= 1
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if not args.file.is_file():
        parser.error(f"there is no file {args.file}")
    text = args.file.read_bytes()
    if args.file.suffix == ".xz":
        text = lzma.decompress(text)
    if len(text) != PARTS["test"]:
        parser.error(f"{args.file} has {len(text):,} bytes; enwik8 has {PARTS['test']:,}")
    args.out.mkdir(parents=True, exist_ok=True)
    start = 0
    for name, end in PARTS.items():
        cut = character_start(text, end)
        path = args.out / f"enwik8-{name}.txt"
        path.write_bytes(text[start:cut])
        print(f"{path}: {cut - start:,} bytes")
        start = cut


if __name__ == "__main__":
    main()
