"""The experiments as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from agent.lab.findings.model import Found, Table, shown

__all__ = ["page"]

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:0 0 1.5rem;font-size:13px}caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{padding:.2rem .8rem .2rem 0;text-align:right;border-bottom:1px solid #ddd;vertical-align:bottom}
th:first-child,td:first-child{text-align:left;white-space:nowrap}
.scroll{overflow-x:auto}svg{max-width:100%;height:auto}h2{margin-top:2.5rem}.quiet{color:#666}
"""


def page(title: str, about: str, found: Sequence[Found], pictures: dict[str, str]) -> str:
    """The page's text; `pictures` are SVG texts by the name of their figure."""
    parts = [
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><p>{escape(about)}</p>",
    ]  # fmt: skip
    for experiment in found:
        parts += [f"<h2>{escape(experiment.title)}</h2>", f"<p>{escape(experiment.setting)}</p>"]
        parts += [_inline(pictures[figure.name]) for figure in experiment.figures]
        parts += [_table(table) for table in experiment.tables]
        parts += ["<ul>", *(f"<li>{escape(note)}</li>" for note in experiment.notes), "</ul>"]
        parts.append(f'<p class="quiet">Measured in {experiment.seconds:.0f} s.</p>')
    return "\n".join([*parts, "</body></html>", ""])


def _inline(svg: str) -> str:
    """An SVG file's element: what stands before it is for files of their own."""
    return svg[svg.index("<svg") :]


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column.name)}</th>" for column in table.columns)
    rows = "".join(
        "<tr>"
        + "".join(f"<td>{escape(shown(cell, column))}</td>" for cell, column in zip(row, table.columns, strict=True))
        + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{escape(table.title)}</caption>"
    return f'<div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
