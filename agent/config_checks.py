"""How a configuration value is checked, and how one is refused.

Every refusal is a pydantic error of the type REFUSED whose context holds `Conflict`s: what is wrong, at which key, and
which other keys take part. `config_file` turns them into places in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

__all__ = [
    "FROM_FILE", "NOT_TEXT", "REFUSED", "Between", "Check", "Conflict", "Location", "at_most", "not_text", "printable",
    "refusal",
]  # fmt: skip

Location = tuple[str | int, ...]

REFUSED = "refused"
NOT_TEXT = "not_text"
# The validation context of values that come from a file: a bare number is not a duration there.
FROM_FILE = {"from_file": True}


@dataclass(frozen=True)
class Conflict:
    """One thing wrong: `at` is the key (relative to the value checked), `involved` the other keys it depends on."""

    text: str
    at: Location = ()
    involved: tuple[Location, ...] = ()


def refusal(*conflicts: Conflict | str) -> PydanticCustomError:
    """The error to raise from a validator for one or more conflicts."""
    all_of_them = tuple(Conflict(one) if isinstance(one, str) else one for one in conflicts)
    text = "; ".join(one.text for one in all_of_them)
    return PydanticCustomError(REFUSED, "{text}", {"text": text, "conflicts": all_of_them})


def printable(text: str) -> str:
    """The same, or what Python writes for it: a message is one line, and terminals obey what they are told."""
    return text if text.isprintable() else repr(text)


def not_text(expected: str) -> PydanticCustomError:
    """The error for a value that had to be text and is not."""
    return PydanticCustomError(NOT_TEXT, "must be {expected}", {"expected": expected})


@dataclass(frozen=True)
class Between:
    """Inclusive bounds of a number; the message names both."""

    low: float
    high: float

    def check(self, value: Any) -> Any:
        """`value` when it is within the bounds; NaN never is."""
        if not self.low <= value <= self.high:
            raise refusal(f"must be {self.low} to {self.high}, not {value}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Check:
    """A check of a value that has its type already; `shown` are the JSON schema keywords that tell editors of it."""

    check: Callable[[Any], Any]
    shown: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), **self.shown}


def at_most(number: int) -> Check:
    """The check of a list that holds no more than `number` items."""

    def check(values: Sequence[object]) -> Sequence[object]:
        if len(values) > number:
            raise refusal(f"lists {len(values)}, and there is room for {number}; join some")
        return values

    return Check(check, {"maxItems": number})
