"""Print the JSON Schema of what a tool or command writes with --json.

Without a NAME, it is the schema of the header and of the account, which all of them share. With --all, every schema is
written to a directory, one file each.

examples:
  usdtkit schema gethostlatency
  usdtkit schema --all docs/schema
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import chain
from types import ModuleType
from typing import Any

from usdtkit.cli import COMMANDS, command, is_tool, tool_names
from usdtkit.cli.pages import write_all
from usdtkit.cli.tracing import tool_schema
from usdtkit.errors import NotFoundError, UsageError
from usdtkit.results.columns import Schema
from usdtkit.results.schemas import of_header, of_rows, of_summary


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit schema`."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a tool, or a command that writes JSON")
    parser.add_argument("--all", metavar="DIRECTORY", help="write every schema to this directory")


def run(options: argparse.Namespace) -> int:
    """Print one schema, or write all of them."""
    if options.all is None:
        print(json.dumps(of_name(options.name) if options.name else shared(), indent=1))
        return 0
    if options.name:
        raise UsageError(f"--all writes every schema, including that of {options.name}")
    schemas = [("common", shared()), *every()]
    write_all(options.all, {f"{name}.json": f"{json.dumps(schema, indent=1)}\n" for name, schema in schemas})
    return 0


def shared() -> dict[str, Any]:
    """The schemas of the first and the last line, which all tools share."""
    return {"$defs": {"header": of_header(), "summary": of_summary()}}


def of_name(name: str) -> dict[str, Any]:
    """The schema of a tool, or of one of the kinds of objects that a command writes."""
    modules = [command(name)[0]] if name in tool_names() else _commands()
    for schema in chain.from_iterable(map(schemas_of, modules)):
        if schema.name == name:
            return of_rows(schema)
    raise NotFoundError(f"usdtkit {name} does not write JSON", hint="usdtkit schema NAME, such as trace or list")


def every() -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, schema) of all that is installed."""
    modules = chain(_commands(), (command(name)[0] for name in tool_names()))
    for schema in chain.from_iterable(map(schemas_of, modules)):
        yield schema.name, of_rows(schema)


def schemas_of(module: ModuleType) -> Sequence[Schema]:
    """The schemas that a module declares: SCHEMAS of a command, or the one of a tool's COLUMNS."""
    if is_tool(module):
        return [tool_schema(module)]
    schemas: Sequence[Schema] = getattr(module, "SCHEMAS", ())
    return schemas


def _commands() -> Iterator[ModuleType]:
    return (import_module(f"usdtkit.cli.{name}") for name in (*COMMANDS, "explain") if name != "run")
