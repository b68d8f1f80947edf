"""Tables of HTML, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from agent.display import whole

__all__ = ["Markup", "number", "table"]


class Markup(str):
    """HTML that is safe already; anything else gets escaped."""

    __slots__ = ()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: int = 0) -> str:
    """A table; the last `numbers` columns are numbers."""
    first = len(columns) - numbers
    kinds = [""] * first + [' class="number"'] * numbers
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, columns, strict=True))
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def number(text: str) -> Markup:
    """A cell with a number that is text already."""
    return Markup(f'<td class="number">{escape(text)}</td>')


def _cell(value: object) -> str:
    if isinstance(value, Markup):
        return value
    if isinstance(value, int):
        return number(whole(value))
    return f"<td>{escape(str(value))}</td>"
