"""What config/tcptuned.yaml says of every key, in its comments: the one text that editors and the man page show too.

A key's comment is the block of lines right above it, then what follows it on its line and goes on in the lines below.
The example in a comment (its lines are indented further) is read like the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml
from yaml import MappingNode, Node, SequenceNode

__all__ = ["DEFAULT_FILE", "Key", "words"]

Key = tuple[str, ...]
"""Names from the top; an entry of a list has its list's name: ("paths", "rules", "match")."""

DEFAULT_FILE = Path(__file__).resolve().parent.parent / "config" / "tcptuned.yaml"

_EXAMPLE = re.compile(r"^( *)#   (?=[ -])")
_COMMENT = re.compile(r" *#(?!   [ -]) ?(.*)$")


@cache
def words() -> dict[Key, str]:
    """One paragraph for every key that has a comment."""
    lines = DEFAULT_FILE.read_text(encoding="utf-8").splitlines()
    found = dict(_of(lines))
    # The example becomes keys, and the empty list that it stands for goes.
    shown = [_EXAMPLE.sub(r"\1  ", line) for line in lines if line.strip() != "rules: []"]
    first = next(number for number, line in enumerate(lines) if _EXAMPLE.match(line))
    shown.insert(first, "  rules:")
    return {**dict(_of(shown)), **found}


def _of(lines: list[str]) -> Iterator[tuple[Key, str]]:
    root = yaml.compose("\n".join(lines), Loader=yaml.SafeLoader)
    assert root is not None
    for key, node in _keys(root, ()):
        line, column = node.start_mark.line, node.start_mark.column
        above: list[str] = []
        for text in reversed(lines[:line]):
            if not re.match(rf" {{{column}}}#", text):
                break
            above[:0] = [found[1]] if (found := _COMMENT.match(text)) else []
        beside = re.search(r" # ?(.*)$", lines[line])
        after = []
        if beside:
            after = [beside[1]]
            for text in lines[line + 1 :]:
                if not re.match(rf" {{{beside.start() + 1}}}#", text):
                    break
                after += [text.strip(" #")]
        if text := " ".join([*above, *after]).strip():
            yield key, re.sub(r" +", " ", text)


def _keys(node: Node, above: Key) -> Iterator[tuple[Key, Node]]:
    if isinstance(node, MappingNode):
        for name, value in node.value:
            key = (*above, str(name.value))
            yield key, name
            yield from _keys(value, key)
    elif isinstance(node, SequenceNode):
        for entry in node.value:
            yield from _keys(entry, above)
