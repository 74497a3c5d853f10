"""The result as a page."""

from __future__ import annotations

import html
from typing import Any

from checks import is_well

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
td, th { border-bottom: 1px solid #ccc; padding: .2rem .8rem .2rem 0; text-align: left }
td:not(:first-child) { font-variant-numeric: tabular-nums }
.bad { color: #b00020; font-weight: bold }
pre { white-space: pre-wrap }
"""


def page(result: dict[str, Any]) -> str:
    """HTML that needs nothing else."""
    parts = "".join(_part(name, part) for name, part in result["checks"].items())
    title = f"sdltx {html.escape(result['sdltx'])} on {html.escape(result['device'])}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{html.escape(result['what'])}</p><pre>{html.escape(result['doctor'])}</pre>{parts}</html>\n"
    )


def lines(name: str, part: dict[str, Any]) -> str:
    """The same of a check for a terminal."""
    head = f"{name}: {'well' if is_well(part) else 'NOT WELL'}, {part['seconds']} s"
    rows = [
        "  " + ", ".join([row["name"], *(f"{key} {_spelt(value)}" for key, value in row.items() if key != "name")])
        for row in part["rows"]
    ]
    return "\n".join([head, *rows, *(["  " + part["problem"]] if part["problem"] else [])])


def _part(name: str, part: dict[str, Any]) -> str:
    columns = list(dict.fromkeys(key for row in part["rows"] for key in row))
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>"
        + "".join(f"<td{_mark(row, key)}>{html.escape(_spelt(row.get(key, '')))}</td>" for key in columns)
        + "</tr>"
        for row in part["rows"]
    )
    problem = f'<pre class="bad">{html.escape(part["problem"])}</pre>' if part["problem"] else ""
    return f"<h2>{html.escape(name)}</h2><table><tr>{head}</tr>{body}</table>{problem}<p>{part['seconds']} s</p>"


def _mark(row: dict[str, Any], key: str) -> str:
    return ' class="bad"' if key == "ok" and not row[key] else ""


def _spelt(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.2e}" if isinstance(value, float) and abs(value) < 0.1 and value else str(value)
