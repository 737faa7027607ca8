"""Columns → JSON Schema of the objects that `--json` writes.

Input: `Schema`s. Output: dictionaries for `json.dumps`. `usdtkit schema` prints them, and the tests check every line of
every tool against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from usdtkit.results.account import SUMMARY
from usdtkit.results.columns import FRAME, Column, Schema

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_COUNT = {"type": "integer", "minimum": 0}
_TYPES: dict[str, dict[str, Any]] = {
    "time": {"type": "integer"},
    "duration": _COUNT,
    "integer": {"type": "integer"},
    "count": _COUNT,
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "text": {"type": ["string", "null"]},
    "bytes": {"type": ["string", "null"]},
    "stack": {"type": ["array", "null"]},
    "pyframe": {
        "type": ["object", "null"],
        "required": ["function", "file", "line"],
        "properties": {
            "function": {"type": ["string", "null"], "description": "the function, with its class"},
            "file": {"type": ["string", "null"], "description": "the path of the source"},
            "line": {"type": ["integer", "null"], "description": "the line of the source"},
        },
        "additionalProperties": False,
    },
    "list": {"type": "array"},
    "object": {"type": "object"},
    "id": {"type": ["integer", "string"]},
    "buckets": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["low", "high", "count"],
            "properties": {
                "low": {"type": ["integer", "null"], "description": "the lower bound, which belongs to the bucket"},
                "high": {"type": ["integer", "null"], "description": "the upper bound, which does not"},
                "count": {"type": "integer", "minimum": 1},
            },
        },
    },
}
_WALL_TIME = {"type": "string", "format": "date-time", "description": "the wall-clock time, in UTC"}


def of_rows(schema: Schema) -> dict[str, Any]:
    """The JSON Schema of a tool's rows. It names every field that can occur."""
    columns = [column for column in schema.columns if not column.table_only]
    return {"$schema": DRAFT, "title": schema.title, **_closed(*_properties(columns))}


def _properties(columns: Sequence[Column]) -> tuple[dict[str, Any], list[str]]:
    """The properties of an object with these columns, and the names of those that are always there."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for column in columns:
        names = ["time", column.name] if column.type == "time" else [column.name]
        properties |= dict.fromkeys(names[:-1], _WALL_TIME)
        properties[column.name] = of_column(column)
        required += [] if column.optional else names
        if column.type in ("text", "bytes"):
            properties[f"{column.name}_truncated"] = {
                "type": "boolean",
                "description": f"true if only the beginning of {column.name} was read, and absent otherwise",
            }
        elif column.type == "stack":
            properties[f"{column.name}_end"] = {
                "type": "string",
                "description": f"why outer calls are missing in {column.name}, and absent if they are not known to be",
            }
    return properties, required


def of_column(column: Column) -> dict[str, Any]:
    """The JSON Schema of one value."""
    kind = dict(_TYPES[column.type])
    if column.values:
        kind["enum"] = list(column.values)
    if fields := FRAME if column.type == "stack" else column.fields:
        whole = _closed(*_properties(fields))
        kind = whole if column.type == "object" else {**kind, "items": whole}
    if column.nullable and isinstance(kind["type"], str):
        kind["type"] = [kind["type"], "null"]
    return {**kind, "description": column.meaning} if column.meaning else kind


def of_header() -> dict[str, Any]:
    """The JSON Schema of the first line."""
    name = {"type": "string", "pattern": r"^usdtkit\.[a-z][a-z0-9_]*/[0-9]+$"}
    return {"$schema": DRAFT, "title": "header", **_closed({"schema": name, "time": _WALL_TIME}, ["schema"])}


def of_summary() -> dict[str, Any]:
    """The JSON Schema of the last line of a trace."""
    inner = _closed({column.name: of_column(column) for column in SUMMARY}, [column.name for column in SUMMARY])
    return {"$schema": DRAFT, "title": "summary", **_closed({"summary": inner}, ["summary"])}


def _closed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}
