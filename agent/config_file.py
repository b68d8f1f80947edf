"""Reads configuration files: all mistakes at once, each as `file:line:column: key: message`.

The main one, and others that have a model of their own. Lines and columns count from 1 and are those of the offending
value, or of the key when the key itself is wrong.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml import Node, ScalarNode
from yaml.resolver import Resolver

from agent.config import Config
from agent.config_checks import FROM_FILE, NOT_TEXT, REFUSED, Conflict, Location
from agent.config_yaml import Document, Misread, Problem, parse, show, suggestion
from agent.errors import ConfigurationError

__all__ = ["load", "loads", "read", "wrong"]

AnyModel = TypeVar("AnyModel", bound=BaseModel)

_LARGEST_BYTES = 1 << 20
_MOST_PROBLEMS = 500  # no person reads more, and each unknown key costs a search for its like

_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "tuple_type": "a list, such as [a, b]",
    "model_type": "a section with keys of its own",
    "model_attributes_type": "a section with keys of its own",
}
# What YAML must read for the quotes to be what is wrong.
_WITHOUT_QUOTES = {"bool_type": {"bool"}, "int_type": {"int"}, "float_type": {"int", "float"}}


def load(path: Path) -> Config:
    """The configuration in the file `path`.

    Raises ConfigurationError with every problem when the file cannot be read or says something wrong.
    """
    return read(path, Config, named_by="--config")[0]


def loads(data: bytes, name: str) -> Config:
    """The configuration in `data`; `name` stands for the file in messages. Raises ConfigurationError as `load`."""
    return _parsed(data, name, Config)[0]


def read(path: Path, model: type[AnyModel], *, named_by: str) -> tuple[AnyModel, Document]:
    """What the file `path` says, and where. `named_by` tells where it is named. Raises ConfigurationError as `load`."""
    return _parsed(_read(path, named_by), str(path), model)


def wrong(name: str, problems: list[Problem]) -> ConfigurationError:
    """The error for all that is wrong in the file `name`."""
    ordered = sorted(set(problems), key=lambda problem: (problem.line, problem.column))
    if len(ordered) > _MOST_PROBLEMS:
        last = ordered[_MOST_PROBLEMS]
        ordered[_MOST_PROBLEMS:] = [Problem(last.line, last.column, "file", "has more mistakes from here on")]
    return ConfigurationError([f"{name}:{one.line}:{one.column}: {one.key}: {one.text}" for one in ordered])


def _parsed(data: bytes, name: str, model: type[AnyModel]) -> tuple[AnyModel, Document]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line_start = data.rfind(b"\n", 0, error.start) + 1
        place = (data.count(b"\n", 0, error.start) + 1, len(data[line_start : error.start].decode(errors="ignore")) + 1)
        raise wrong(name, [Problem(*place, "file", "is not UTF-8 here; save it as UTF-8")]) from None
    document = parse(text)
    if isinstance(document, Problem):
        raise wrong(name, [document])
    return _validated(document, name, model), document


def _read(path: Path, named_by: str) -> bytes:
    cure = None
    data = b""
    try:
        # Without O_NONBLOCK opening a FIFO would wait for a writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                cure = "is not a regular file; name a YAML file"
            else:
                data = file.read(_LARGEST_BYTES + 1)
    except IsADirectoryError:
        cure = "is a directory; name a YAML file in it"
    except FileNotFoundError:
        cure = f"does not exist; name another with {named_by}"
    except PermissionError:
        cure = "may not be read by this user; change its mode or owner"
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        cure = f"cannot be read ({error})"
    if len(data) > _LARGEST_BYTES:
        cure = "is larger than 1 MiB; this is no configuration of tcptuned"
    if cure:
        raise wrong(str(path), [Problem(1, 1, "file", cure)])
    return data


def _validated(document: Document, name: str, model: type[AnyModel]) -> AnyModel:
    """The model of `document`.

    Pydantic compares keys with one another only when each alone is right. So that one run shows all mistakes, wrong
    values are taken out and the rest is checked again; then only conflicts between values that are still there count.
    """
    problems = document.problems
    first = True
    while True:
        try:
            config = model.model_validate(document.values, context=FROM_FILE)
        except ValidationError as error:
            details = error.errors(include_url=False)
            found = [one for detail in details[: _MOST_PROBLEMS + 1] for one in _found(document, detail, model)]
        else:
            break
        problems += [problem for problem, _, certain in found if first or certain]
        if len(details) > _MOST_PROBLEMS or not document.drop([node for _, node, _ in found]):
            raise wrong(name, problems or [problem for problem, _, _ in found])
        first = False
    if problems:
        raise wrong(name, problems)
    return config


def _found(document: Document, detail: ErrorDetails, model: type[BaseModel]) -> list[tuple[Problem, Node, bool]]:
    """Each problem in one of pydantic's errors, the node to take out, and whether that is no result of taking out."""
    around = detail["loc"]
    node, key = document.nearest(around), document.key(around)
    kind = detail["type"]
    if kind == REFUSED:
        return [_conflict(document, around, conflict) for conflict in detail["ctx"]["conflicts"]]
    if kind == "extra_forbidden":
        text = f"is not a known key; {suggestion(str(around[-1]), _keys_at(model, around[:-1]))}"
        return [(document.problem(key or node, text), node, False)]
    if kind == "missing":
        return [(document.problem(node, f"needs the key {around[-1]}"), node, False)]
    return [(document.problem(node, _wrong_type(detail, node)), node, False)]


def _conflict(document: Document, around: Location, conflict: Conflict) -> tuple[Problem, Node, bool]:
    places = [(*around, *place) for place in (conflict.at, *conflict.involved)]
    # A key that the file leaves at its default has no place: then the other key of the conflict has.
    node = document.nearest(next((place for place in places if document.node(place)), around))
    return document.problem(node, conflict.text), node, not any(map(document.in_doubt, places))


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that the section at `location` of a `model` knows."""
    for part in location:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation)
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel]:
    """The model inside `Model`, `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(_model_in(part) for part in annotation.__args__ if part not in {type(None), Ellipsis})


def _wrong_type(detail: ErrorDetails, node: Node) -> str:
    """What was expected, what is there instead, and the cure."""
    kind, value = detail["type"], detail["input"]
    expected = _EXPECTED.get(kind) or detail.get("ctx", {}).get("expected", detail["msg"])
    wants_text = kind in {"string_type", NOT_TEXT}
    if value is None:
        found = ", but there is no value; write one or delete the key"
    elif isinstance(value, list | dict):
        found = f", not a {'list' if isinstance(value, list) else 'section'}"
    elif isinstance(value, Misread) and value.value is None:
        found = f"; {show(value.text)} cannot be read as any value"
    elif isinstance(value, str):
        found = f", not the text {show(value)}"
        if isinstance(node, ScalarNode) and node.style and _bare_type(node.value) in _WITHOUT_QUOTES.get(kind, ()):
            found += "; remove the quotes"
    else:
        written = str(node.value if isinstance(node, ScalarNode) else value)
        read = _read_as(value)
        found = f", not {read}" if read.endswith(written) else f"; YAML reads {written[:40]} as {read}"
        if wants_text or repr(written) in expected:  # one of the words that are allowed
            found += "; quote it"
        elif isinstance(value, Misread):
            found += "; write the number that you mean"
    return f"must be {expected}{found}"


def _bare_type(text: str) -> str:
    """The type that YAML gives to `text` without quotes: int, float, bool..."""
    tag: str = Resolver().resolve(ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tag.rpartition(":")[2]


def _read_as(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Misread):
        value = value.value
    if isinstance(value, int | float):
        return f"the number {value}"
    return f"a {type(value).__name__}"
