"""Figures and the page of the experiments."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from html.parser import HTMLParser

from agent.lab.findings.model import Column, Figure, Found, Series, Table, shown
from agent.lab.findings.page import page
from agent.lab.findings.plots import draw
from agent.lab.ratios import Ratio

LINES = Figure("rtt", "RTT <over> time", "s", "ms", [Series("bbr & co", [0, 1, 2], [10, 20, 15])], kind="lines")
POINTS = Figure(
    "points", "Points", "", "ratio", [Series(name, [0, 1], [1, 2], [0.9, 1.5], [1.2, 2.5]) for name in ("a", "b")],
    ticks=("here", "there"), reference=1.0,
)  # fmt: skip
FOUND = Found(
    name="x", title="A < B", setting="so & so",
    tables=[Table("t", [Column("name"), Column("ratio", 3), Column("n", 0)], [["<b>", Ratio(1, 0.5, 2), 12345.0]])],
    figures=[LINES, POINTS], notes=["note"], seconds=12.3,
)  # fmt: skip


def test_cells_are_shown_with_their_columns_digits() -> None:
    column = Column("c", 1)
    assert shown(None, column) == "-"
    assert shown("text", column) == "text"
    assert shown(1234.56, column) == "1,234.6"
    assert shown(Ratio(1.04, 0.96, 1.149), column) == "1.0 (1.0 to 1.1)"


def test_figures_are_svg_with_readable_text_and_always_the_same() -> None:
    for figure in (LINES, POINTS):
        root = ET.fromstring(draw(figure))
        texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
        assert {figure.title, figure.y_label, *(series.label for series in figure.series), *figure.ticks} <= texts
        assert draw(figure) == draw(figure)


def test_the_page_needs_no_other_file_and_escapes_what_it_shows() -> None:
    text = page("Title", "About", [FOUND], {figure.name: draw(figure) for figure in FOUND.figures})

    class Check(HTMLParser):
        cells: list[str] = []  # noqa: RUF012
        pictures = 0
        cell = False

        def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
            assert tag not in {"b", "script", "link", "img", "over"}
            self.cell = tag == "td"
            self.pictures += tag == "svg"

        def handle_data(self, data: str) -> None:
            if self.cell:
                self.cells.append(data)
                self.cell = False

    check = Check()
    check.feed(text)
    assert check.pictures == 2
    assert check.cells == ["<b>", "1.000 (0.500 to 2.000)", "12,345"]
