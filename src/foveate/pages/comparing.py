"""Compare: what ``foveate compare`` measures, as the page that it writes."""

from __future__ import annotations

import shlex
from typing import Any

from foveate.bench.compare import Plan, compare
from foveate.pages.fields import Fields
from foveate.pages.shelf import Shelf
from foveate.pages.work import Job, Work
from foveate.report.learning import cautions
from foveate.report.page import page
from foveate.report.plots import plots
from foveate.report.results import Results

QUICK: dict[str, Any] = {"max_bytes": 20_000, "decode_tokens": 16, "repeats": 2}
EFFORTS = ("quick", "full")


def comparison(shelf: Shelf, fields: Fields) -> Work:
    """What a request asks for: ``models``, the first of which the others are compared with, and ``effort``.

    ``full`` measures as ``foveate compare`` does by default, ``quick`` on less text and with fewer timings.
    """
    names = fields.names("models", 1, 4)
    effort = fields.choice("effort", EFFORTS, default="quick")
    fields.end()

    def work(job: Job) -> dict[str, Any]:
        readers = [shelf.reader(name) for name in names]
        plan = Plan(**QUICK) if effort == "quick" else Plan()
        records: list[dict[str, Any]] = []
        for record in compare([reader.subject() for reader in readers], plan, note=lambda line: job.tell(note=line)):
            records.append(record)
            job.tell(record=record["kind"])
        results = Results(records)
        job.tell(note="drawing")
        title = " against ".join(reversed(names))
        command = shlex.join(["foveate", "compare", *(str(reader.path) for reader in readers), *_flags(effort)])
        html = page(results, plots(results), title=title, commands=[command], notes=cautions(results))
        return {"title": title, "records": records, "html": html}

    return work


def _flags(effort: str) -> list[str]:
    if effort == "full":
        return []
    named = {"max_bytes": "--bytes", "decode_tokens": "--decode-tokens", "repeats": "--repeats"}
    return [word for name, value in QUICK.items() for word in (named[name], str(value))]
