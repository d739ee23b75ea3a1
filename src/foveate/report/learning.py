"""How runs learnt, as a table; and what to mind where those compared were not trained alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foveate.report.results import Record, Results
from foveate.report.screen import new_table
from foveate.report.units import duration, quantity

if TYPE_CHECKING:
    from rich.console import Console

NO_VALIDATION = ("train", "loss", "training loss, nats per token")
LINES = 12  # of a curve: the ends, and evenly spaced between them


def cautions(results: Results) -> list[str]:
    """A sentence for each way in which the runs were not trained alike: on other text, or on more of it."""
    models = [model for model in results.all("model") if model["settings"]]
    found = []
    if len({model["trained_tokens"] for model in models}) > 1:
        counts = ", ".join(f"{model['name']} on {quantity(model['trained_tokens'] or 0)}" for model in models)
        found.append(
            f"Caution: the runs were not trained on equally many tokens ({counts}); more of them help any model."
        )
    if len({_data(model) for model in models}) > 1:
        places = ", ".join(f"{model['name']} on {_data(model)}" for model in models)
        found.append(f"Caution: the runs were not trained on the same data ({places}); what differs may be the data's.")
    return found


def _data(model: Record) -> str:
    return " ".join(map(str, model["settings"]["data"]))


def print_learning(results: Results, console: Console) -> None:
    """Each run's learning curve: what it had read, how long that took, and how well it then did on held-out text."""
    for curve in results.all("curve"):
        kind, key, unit = ("valid", "bpb", "bits per byte, held out") if curve["valid"]["tokens"] else NO_VALIDATION
        line = curve[kind]
        table = new_table(f"{curve['name']}: trained on", ["in", unit])
        last = len(line["tokens"]) - 1
        for at in sorted({round(last * part / (LINES - 1)) for part in range(LINES)}):
            count, seconds, value = (line[name][at] for name in ("tokens", "seconds", key))
            table.add_row(f"{quantity(count)} tokens", duration(seconds), f"{value:.4f}")
        console.print()
        console.print(table)
