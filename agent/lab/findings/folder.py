"""What was found, as files: JSON, a picture a figure, and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.errors import UsageError
from agent.lab.findings.model import Found
from agent.lab.findings.page import page
from agent.lab.findings.plots import draw

__all__ = ["make_folder", "write_findings"]


def make_folder(folder: Path) -> None:
    """Makes it, if it is missing: before hours of measuring, not after. Raises UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {folder}: {error.strerror}; name a folder that can be written") from error


def write_findings(folder: Path, title: str, about: str, found: Sequence[Found], result: str) -> None:
    """`result` becomes results.json; index.html has `title`, `about`, and all tables and figures."""
    pictures = {figure.name: draw(figure) for each in found for figure in each.figures}
    for name, text in pictures.items():
        (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    (folder / "results.json").write_text(result + "\n", encoding="utf-8")
    (folder / "index.html").write_text(page(title, about, found, pictures), encoding="utf-8")
