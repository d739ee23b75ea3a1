"""The records of a comparison, found by what they are about."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from foveate.errors import FoveateError

Record = dict[str, Any]


class Results:
    """Records of ``foveate compare``: JSON objects with a ``kind``, and a ``name`` where they are about one model.

    The first model is the one that the others are compared with.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = list(records)
        self.names: list[str] = [record["name"] for record in self.all("model")]

    @classmethod
    def parse(cls, lines: str) -> Results:
        """Read JSON lines.

        Raises:
            FoveateError: they are not those of a comparison.
        """
        try:
            results = cls(json.loads(line) for line in lines.splitlines())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise FoveateError("these are not the results of a comparison: a line is not a record") from None
        if not results.names:
            raise FoveateError("these are not the results of a comparison: there is no model in them")
        return results

    def to_lines(self) -> str:
        return "".join(json.dumps(record) + "\n" for record in self.records)

    def all(self, kind: str, name: str | None = None) -> list[Record]:
        return [r for r in self.records if r["kind"] == kind and (name is None or r["name"] == name)]

    def one(self, kind: str, name: str | None = None) -> Record | None:
        """The last such record."""
        found = self.all(kind, name)
        return found[-1] if found else None

    @property
    def context(self) -> int:
        setup = self.one("setup")
        assert setup is not None
        return setup["context"]

    @property
    def decode_contexts(self) -> list[int]:
        return sorted({record["context"] for record in self.all("decode")})

    def decode(self, name: str, context: int) -> Record | None:
        return next((record for record in self.all("decode", name) if record["context"] == context), None)
