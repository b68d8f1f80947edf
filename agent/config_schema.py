"""JSON schema of the configuration file, for editors: `tcptuned schema`, and config/tcptuned.schema.json.

It knows every key, type and bound that a schema can hold; what keys mean together is for `tcptuned check`.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from agent.config import Config
from agent.config_words import Key, words
from agent.units import format_duration

__all__ = ["config_schema"]

# Editors know this draft best; nothing in the schema needs a later one.
_DRAFT = "http://json-schema.org/draft-07/schema#"


class _FileSchema(GenerateJsonSchema):
    """Durations are text in the file, their defaults too."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        result = super().default_schema(schema)
        if result.get("type") == "string" and isinstance(result.get("default"), float):
            result["default"] = format_duration(result["default"])
        return result


def config_schema() -> dict[str, Any]:
    """The schema, ready for JSON; descriptions are the comments of config/tcptuned.yaml."""
    whole = Config.model_json_schema(mode="validation", schema_generator=_FileSchema)
    told = _told(whole, whole.pop("$defs"), ())
    return {
        "$schema": _DRAFT,
        "title": "tcptuned.yaml",
        "description": "The configuration of tcptuned; every key is optional.",
        **told,
    }


def _told(part: dict[str, Any], definitions: dict[str, Any], key: Key) -> dict[str, Any]:
    """`part` with references resolved, since the draft ignores what stands beside one, and the file's own words."""
    if name := part.get("$ref"):
        part = {**definitions[name.rpartition("/")[2]], **part}
    result = {
        word: value for word, value in part.items() if word not in ("$ref", "title", "description", "default", "anyOf")
    }
    # A section's default is only that of its keys.
    if "default" in part and not isinstance(part["default"], dict):
        result["default"] = part["default"]
    if options := part.get("anyOf"):
        result["anyOf"] = [_inner(option, definitions, key) for option in options]
    if "items" in part:
        result["items"] = _inner(part["items"], definitions, key)
    if "properties" in part:
        result["properties"] = {
            name: _told(value, definitions, (*key, name)) for name, value in part["properties"].items()
        }
    if key and (text := _meaning(key) or ("" if "properties" in part else part.get("description"))):
        result = {"description": text, **result}
    return result


def _inner(part: dict[str, Any], definitions: dict[str, Any], key: Key) -> dict[str, Any]:
    told = _told(part, definitions, key)
    told.pop("description", None)
    return told


def _meaning(key: Key) -> str | None:
    """A group's own `extensions` mean what the general ones do."""
    known = words()
    return known.get(key) or (known.get(key[2:]) if key[:3] == ("paths", "rules", "extensions") else None)
