"""YAML text as plain values, each with its place in the file; PyYAML's safe types only, and less than YAML allows.

Refused with a place: duplicate keys (PyYAML keeps the last silently), tags, anchors and aliases (no need for them
here, and nested aliases can fill the memory), nesting deeper than any valid file, and scalars that YAML 1.1 reads
differently from people (`010` is 8, `12:30:45` is 45045).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode
from yaml.events import AliasEvent

from agent.config_checks import Location

__all__ = ["Document", "Misread", "Problem", "parse", "show"]

_DEEPEST = 12  # a valid file needs 7
# Octal with a leading zero, and base 60 with colons (a date never matches).
_MISREAD_NUMBER = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")


@dataclass(frozen=True)
class Problem:
    """Something wrong at a place; `line` and `column` count from 1."""

    line: int
    column: int
    key: str
    text: str


@dataclass(frozen=True)
class Misread:
    """A scalar that YAML 1.1 reads differently from people, or not at all (None); no model accepts it."""

    text: str
    value: object


class _RefusedError(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


class _Loader(yaml.SafeLoader):
    """The safe loader without tags, anchors, aliases and deep nesting."""

    depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, AliasEvent) or event.anchor is not None:
            raise _refused(event.start_mark, "anchors (&) and aliases (*) are not supported; write the value out")
        if event.tag is not None:
            raise _refused(event.start_mark, f"tags such as {show(event.tag)} are not supported; delete it")
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _refused(event.start_mark, "is nested deeper than any key of this file; check brackets and indents")
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def show(value: object) -> str:
    """`value` for a message: one line, at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _refused(mark: Any, text: str) -> _RefusedError:
    return _RefusedError(Problem(mark.line + 1, mark.column + 1, "file", text))


def _syntax_problem(error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    if error.context == "expected a single document in the stream":
        return Problem(line, column, "file", "a second document begins here; delete the line ---")
    said = ", ".join(part for part in (error.context, error.problem) if part)
    cure = "check indents, brackets and quotes before it; an IPv6 address needs quotes"
    return Problem(line, column, "file", f"is not YAML here ({said}); {cure}")


def _compose(text: str) -> Node:
    loader = _Loader(text)
    try:
        node: Node | None = loader.get_single_node()
    finally:
        loader.dispose()
    if node is None:
        raise _RefusedError(Problem(1, 1, "file", "is empty; write at least one key; config/tcptuned.yaml shows all"))
    if not isinstance(node, MappingNode):
        raise _refused(node.start_mark, "must hold keys and values, such as `sampling: {interval: 1s}`")
    return node


def parse(text: str) -> Document | Problem:
    """The document in `text`, or the problem that hides everything after it."""
    try:
        return Document(_compose(text))
    except _RefusedError as refused:
        return refused.problem
    except yaml.MarkedYAMLError as error:
        return _syntax_problem(error)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        column = error.position - (before.rfind("\n") + 1)
        wrong = f"the character U+{ord(text[error.position]):04X} is not allowed; delete it"
        return Problem(before.count("\n") + 1, column + 1, "file", wrong)


class Document:
    """A composed document: `values` (without duplicates and what `drop` removed) and the node of each location."""

    def __init__(self, root: Node) -> None:
        self.problems: list[Problem] = []
        self._root = root
        self._dropped: set[int] = set()
        self._names: dict[int, str] = {}
        self._constructor = yaml.constructor.SafeConstructor()
        self._name(root, "")
        self._build()

    def _name(self, node: Node, name: str) -> None:
        """Remember the dotted name of every node, and drop what cannot be a value."""
        self._names[id(node)] = name or "file"
        if isinstance(node, SequenceNode):
            for index, item in enumerate(node.value):
                self._name(item, f"{name}[{index}]")
        elif isinstance(node, MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                text = key.value if isinstance(key, ScalarNode) else "?"
                shown = text if re.fullmatch(r"[\w?-]{1,60}", text) else show(text)
                self._name(key, f"{name}.{shown}".lstrip("."))
                self._name(value, f"{name}.{shown}".lstrip("."))
                if not isinstance(key, ScalarNode) or not text.isprintable():
                    self._refuse(key, value, "a key must be a plain word")
                elif text in seen:
                    self._refuse(key, value, f"is a duplicate of line {seen[text]}; delete one")
                else:
                    seen[text] = key.start_mark.line + 1

    def _refuse(self, key: Node, value: Node, text: str) -> None:
        self.problems.append(self.problem(key, text))
        self._dropped.add(id(value))

    def problem(self, node: Node, text: str) -> Problem:
        """A problem at `node`."""
        mark = node.start_mark
        return Problem(mark.line + 1, mark.column + 1, self._names[id(node)], text)

    def drop(self, nodes: list[Node]) -> bool:
        """Leave the values `nodes` out of `values` from now on; False when they were out already (or are the root)."""
        before = len(self._dropped)
        self._dropped.update(id(node) for node in nodes if node is not self._root)
        self._build()
        return len(self._dropped) > before

    def node(self, location: Location) -> Node | None:
        """The value at `location`; None when the file has no such key."""
        return self._nodes.get(location)

    def key(self, location: Location) -> Node | None:
        """The key at `location`, where a mapping has it; else None."""
        return self._keys.get(location)

    def nearest(self, location: Location) -> Node:
        """The value at `location`, else at the closest section around it."""
        while location not in self._nodes:
            location = location[:-1]
        return self._nodes[location]

    def in_doubt(self, location: Location) -> bool:
        """Whether the value at `location` was dropped, or something in or around it."""
        return location in self._holed or any(location[:end] in self._gone for end in range(len(location) + 1))

    def _build(self) -> None:
        self._nodes: dict[Location, Node] = {}
        self._keys: dict[Location, Node] = {}
        self._gone: set[Location] = set()
        self._holed: set[Location] = set()
        self.values = self._value(self._root, ())

    def _hole(self, location: Location) -> None:
        self._holed.update(location[:end] for end in range(len(location) + 1))

    def _value(self, node: Node, location: Location) -> Any:
        self._nodes[location] = node
        if isinstance(node, SequenceNode):
            kept = [item for item in node.value if id(item) not in self._dropped]
            if len(kept) < len(node.value):
                self._hole(location)
            return [self._value(item, (*location, index)) for index, item in enumerate(kept)]
        if isinstance(node, MappingNode):
            result: dict[str, Any] = {}
            for key, value in node.value:
                if id(value) not in self._dropped:
                    self._keys[*location, key.value] = key
                    result[key.value] = self._value(value, (*location, key.value))
                elif isinstance(key, ScalarNode):
                    self._gone.add((*location, key.value))
                    self._hole(location)
            # Of a duplicate the first value stays.
            self._gone.difference_update((*location, key) for key in result)
            return result
        return self._scalar(node)

    def _scalar(self, node: Node) -> object:
        try:
            value: object = self._constructor.construct_object(node)
        except (ValueError, OverflowError, yaml.YAMLError):
            return Misread(node.value, None)
        if isinstance(value, str):
            # An escape such as "\ud800" makes half a character, which no encoding can write.
            return Misread(node.value, None) if re.search("[\ud800-\udfff]", value) else value
        if isinstance(value, int) and abs(value) >= 1 << 63:
            return Misread(node.value, None)
        if isinstance(value, int | float) and _MISREAD_NUMBER.fullmatch(node.value):
            return Misread(node.value, value)
        return value


def suggestion(word: str, known: list[str]) -> str:
    """The known word nearest to `word` as a question, or the list of all known words."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"the keys here are {', '.join(known)}"
