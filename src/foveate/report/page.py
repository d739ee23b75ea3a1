"""A comparison as one page that needs nothing else: sentences, table, figures, samples, and how to repeat it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from foveate.report.figures import Plot
from foveate.report.plots import colour
from foveate.report.results import Record, Results
from foveate.report.style import BASE
from foveate.report.tables import Row, headline, rows
from foveate.report.units import data_size, unbroken

ARROWS = {"lower": " ↓", "higher": " ↑"}

# a plot keeps the size of its letters: where the screen is narrower, it is moved sideways; print has no scroll bar
CSS = (
    BASE
    + """
.plot { overflow-x: auto } .plot svg { display: block; width: 100%; min-width: 40rem; height: auto }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); gap: 1rem }
.sample { background: var(--well); border-top: 4px solid; border-radius: 8px; padding: 1rem 1.2rem;
  white-space: pre-wrap; overflow-wrap: anywhere } .sample p { color: var(--ink); margin: 0 }
thead th i { display: block; height: 3px; border-radius: 2px }
@media print { .plot, .scroll { overflow: visible } .plot svg { min-width: 0 } figure, tr, .sample {
  break-inside: avoid } h1, h2, tbody th { break-after: avoid } body { padding: 0; max-width: none } }
"""
)


def page(
    results: Results, plots: Sequence[Plot], *, title: str, commands: Sequence[str] = (), notes: Sequence[str] = ()
) -> str:
    """The HTML of a comparison.

    Args:
        commands: what made it, in order; the commands that trained the models are added.
        notes: sentences that help to judge the numbers.
    """
    shown = {plot.name: _figure(plot) for plot in plots}
    body = [
        *(f'<p class="headline">{escape(unbroken(sentence))}</p>' for sentence in headline(results)),
        *(f'<p class="quiet">{escape(note)}</p>' for note in notes),
        shown.get("walks", ""),
        "<h2>Cost and quality</h2>",
        shown.get("costs", ""),
        *(["<h2>Learning</h2>", shown["learning"]] if "learning" in shown else []),
        *(["<h2>Longer contexts</h2>", shown["growth"]] if "growth" in shown else []),
        _samples(results),
        "<h2>All numbers</h2>",
        _table(results),
        _method(results),
        _repeat(results, commands),
    ]
    return _whole(title, body)


def probe_page(plots: Sequence[Plot], records: Sequence[Record], *, title: str, command: str) -> str:
    """The HTML of a probe: its figures, the numbers that its records come to, and how to repeat it."""
    body = [
        *map(_figure, plots),
        "<h2>All numbers</h2>",
        *(_record(record) for record in records if record.get("kind") != "curve"),
        "<p>Every point of the curves is in <code>results.jsonl</code>, beside this page.</p>",
        f"<h2>To repeat it</h2><pre>{escape(command)}</pre>",
    ]
    return _whole(title, body)


def _record(record: Record) -> str:
    """A record's numbers as rows of a table; lists of many belong to the file."""
    rows = [
        f"<tr><td>{escape(key.replace('_', ' '))}</td><td>{escape(_plain(value))}</td></tr>"
        for key, value in record.items()
        if value is not None and not isinstance(value, dict) and not (isinstance(value, list) and len(value) > 4)
    ]
    return f'<div class="scroll" tabindex="0"><table><tbody>{"".join(rows)}</tbody></table></div>'


def _whole(title: str, body: Sequence[str]) -> str:
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>",
            f"<h1>{escape(title)}</h1>",
            *body,
            "</main></body></html>",
            "",
        ]
    )


def _figure(plot: Plot) -> str:
    # a name for those who hear the page, and the keyboard's way to move what is wider than the screen
    svg = plot.svg.replace('role="img"', f'role="img" aria-label="{escape(plot.caption)}"', 1)
    return f'<figure><div class="plot" tabindex="0">{svg}</div><figcaption>{escape(plot.caption)}</figcaption></figure>'


def _table(results: Results) -> str:
    parts = ['<div class="scroll" tabindex="0"><table><thead><tr><td></td>']
    parts += [
        f'<th>{escape(name)}<i style="background: {colour(results, name)}"></i></th><td></td>' for name in results.names
    ]
    parts.append("</tr></thead><tbody>")
    section = ""
    for row in rows(results):
        if row.section != section:
            section = row.section
            parts.append(f'<tr><th colspan="{1 + 2 * len(results.names)}">{escape(section)}</th></tr>')
        parts.append(_table_row(row))
    parts.append("</tbody></table></div>")
    return "".join(parts)


def _table_row(row: Row) -> str:
    label = f"{escape(row.label.strip())}{ARROWS.get(row.better, '')}<small>{escape(row.help)}</small>"
    cells = (
        f'<td>{escape(unbroken(cell.text))}</td><td class="relation">{escape(cell.relation)}</td>' for cell in row.cells
    )
    return f"<tr><td>{label}</td>{''.join(cells)}</tr>"


def _samples(results: Results) -> str:
    samples = results.all("sample")
    if not samples:
        return ""
    first = samples[0]
    boxes = [
        f'<div class="sample" style="border-color: {colour(results, sample["name"])}"><small>{escape(sample["name"])}'
        f"</small><p><b>{escape(sample['prompt'])}</b>{escape(sample['text'])}</p></div>"
        for sample in samples
    ]
    how = f"Temperature {first['temperature']:g}, seed {first['seed']}; the prompt is bold."
    return f'<h2>What they write</h2><p class="quiet">{how}</p><div class="samples">{"".join(boxes)}</div>'


def _method(results: Results) -> str:
    setup = results.one("setup")
    assert setup is not None
    differences = results.all("difference")
    sentences = [
        f"Quality is bits per byte of {escape(setup['text'])} ({data_size(setup['text_bytes'])} of text), in windows "
        f"of {setup['context']:,} tokens that do not overlap, as <code>foveate eval</code> scores it."
    ]
    if differences and differences[0]["low"] is not None:
        units = f"{differences[0]['units']:,} {differences[0]['unit']}s"
        sentences.append(
            f"The interval of a difference is a bootstrap over the {units} of that text: it says what other text would "
            f"change, not what training again with another seed would, which can be more."
        )
    sentences += [
        "Memory is counted tensor by tensor: what autograd keeps from the forward pass for the backward pass, beside "
        "the parameters, each storage once; and the most that all tensors of a step take at one time.",
        "Speeds are medians, the models taking turns in one process, so that a busy machine treats them alike. "
        "Compare ratios; times are of this machine.",
    ]
    versions = ", ".join(f"{name} {version}" for name, version in setup["versions"].items())
    busy = "" if setup["load"] is None else f", load {setup['load']:.1f} when it began"
    machine = (
        f"{setup['processor']}, {setup['cores']} cores, {setup['threads']} threads used{busy}; {setup['device']}; "
        f"{setup['system']}; {versions}; {setup['date']}"
    )
    text = "".join(f"<p>{sentence}</p>" for sentence in sentences)
    return f"<h2>How this was measured</h2>{text}<p>{escape(machine)}.</p>"


def _repeat(results: Results, commands: Sequence[str]) -> str:
    trained = [model["command"] for model in results.all("model") if model["command"]]
    parts = ["<h2>To repeat it</h2>", f"<pre>{escape(chr(10).join([*commands, *trained]))}</pre>", _settings(results)]
    return "".join(parts)


def _settings(results: Results) -> str:
    """The settings of the runs: those that they share, and those in which they differ."""
    models: list[Record] = [model for model in results.all("model") if model["settings"]]
    if len(models) < 2:
        return ""
    names = models[0]["settings"]
    differing = [key for key in names if len({str(model["settings"].get(key)) for model in models}) > 1]
    shared = [key for key in names if key not in differing and names[key] not in (None, [], ())]
    apart = "".join(
        f"<li>{escape(model['name'])}: {escape(_listed(model['settings'], differing))}</li>" for model in models
    )
    return f"<p>The runs differ in</p><ul>{apart}</ul><p>and share: {escape(_listed(names, shared))}.</p>"


def _listed(settings: Record, keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {_plain(settings.get(key))}" for key in keys)


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
