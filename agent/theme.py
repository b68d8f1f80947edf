"""The colours of the pages, light and dark.

Each stands out from the page by 4.5 to 1 (WCAG 2.2, 1.4.3), but for the grid.
"""

from __future__ import annotations

__all__ = ["THEMES", "variables"]

THEMES = {
    "light": {
        "page": "#ffffff", "text": "#1b1f24", "quiet": "#57606a", "grid": "#d0d7de", "first": "#0550ae",
        "second": "#953800", "third": "#116329", "fourth": "#8250df",
    },
    "dark": {
        "page": "#0d1117", "text": "#e6edf3", "quiet": "#9ea7b3", "grid": "#3d444d", "first": "#79c0ff",
        "second": "#ffa657", "third": "#7ee787", "fourth": "#d2a8ff",
    },
}  # fmt: skip


def variables() -> str:
    """The colours as variables of a style sheet; paper is light."""

    def block(theme: str) -> str:
        return "".join(f"--{name}:{value};" for name, value in THEMES[theme].items())

    return (
        f":root{{color-scheme:light dark;{block('light')}}}"
        f"@media (prefers-color-scheme:dark){{@media screen{{:root{{{block('dark')}}}}}}}"
    )
