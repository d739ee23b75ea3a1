"""What checking a model found: each promise kept, broken or not offered, with the evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

KEPT, BROKEN, NOT_OFFERED = "kept", "broken", "not offered"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One promise of one model.

    Args:
        name, group, says: the promise.
        state: ``kept``, ``broken`` or ``not offered``.
        worst: the largest difference found, in logits, nats or shares of a gradient; infinite where it raised.
        allowed: what rounding may do on this model, in the same unit.
        layer: the first layer that is given the same and gives something else.
        input: the shortest input that shows it.
        length, rows: of that input; of a kept promise, of the longest.
        note: why it is not offered, or what else there is to say.
    """

    name: str
    group: str
    says: str
    state: str
    worst: float | None = None
    allowed: float | None = None
    layer: str | None = None
    input: str = ""
    length: int | None = None
    rows: int | None = None
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """All findings about one model."""

    model: str
    kind: str
    dtype: str
    device: str
    parameters: int
    seconds: float
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.state == BROKEN]

    @property
    def kept(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.state == KEPT]

    @property
    def not_offered(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.state == NOT_OFFERED]

    def records(self) -> list[dict[str, Any]]:
        """One plain record per promise, and first one about the model: what ``--json`` prints."""
        about = {name: getattr(self, name) for name in ("model", "kind", "dtype", "device", "parameters", "seconds")}
        counts = {"kept": len(self.kept), "broken": len(self.broken), "not_offered": len(self.not_offered)}
        return [
            {"record": "model", **about, **counts},
            *({"record": "promise", "model": self.model, **_finite(asdict(finding))} for finding in self.findings),
        ]

    def headline(self) -> str:
        """One sentence: what is broken, or that nothing is."""
        of = f"{len(self.kept) + len(self.broken)} promises"
        missing = f", {len(self.not_offered)} not offered" if self.not_offered else ""
        if not self.broken:
            return f"{self.model}: all {of} kept{missing}."
        return f"{self.model}: {len(self.broken)} of {of} broken ({_listed([f.name for f in self.broken])}){missing}."

    def __str__(self) -> str:
        return "\n".join([self.headline(), *(describe(finding) for finding in self.broken)])


def describe(finding: Finding) -> str:
    """A broken promise in one line: how far off, where it starts, what shows it."""
    raises = finding.worst is None or finding.worst == math.inf
    off = "it raises" if raises else f"off by {finding.worst:.3g} where rounding may do {finding.allowed or 0:.1g}"
    where = f", from {finding.layer} on" if finding.layer else ""
    note = f" ({finding.note})" if finding.note else ""
    return f"{finding.name}: {off}{where}: {finding.input}{note}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: what raised has no number."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }
