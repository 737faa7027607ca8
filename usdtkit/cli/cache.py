"""Show, fill or clear the cache: compiled programs, and tables for the stacks of large files.

A tool whose program is in the cache starts sooner, and without bcc even if only bcc could make the program. The tables
say how callers are found in large files. Entries are private to the user; the least recently used are removed when the
cache becomes too large. --fill makes the programs of all tools whose programs do not depend on what they trace. --add
adds the programs of a bundle (see `usdtkit bundle`). They will run in the kernel, so only add bundles that you trust.

examples:
  usdtkit cache
  usdtkit cache --fill
  usdtkit cache --add tools.bundle
  usdtkit cache --clear
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from usdtkit import cache
from usdtkit.errors import UsdtkitError


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit cache`."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--clear", action="store_true", help="remove all entries")
    what.add_argument("--fill", action="store_true", help="make the programs of all tools, a line each")
    what.add_argument("--add", type=Path, metavar="FILE", help="add the programs of a bundle")
    parser.add_argument("--json", action="store_true", help="JSON Lines")


def run(options: argparse.Namespace) -> int:
    """Show, fill or clear."""
    removed = cache.clear() if options.clear else 0
    added = fill() if options.fill else 0 if options.add is None else add(options.add)
    programs, tables = map(_sizes, (cache.PROGRAMS, cache.TABLES))
    if options.json:
        print(json.dumps({"schema": "usdtkit.cache/1"}))
        counts = {"entries": len(programs), "bytes": sum(programs), "removed": removed, "added": added}
        of_tables = {"tables": len(tables), "tables_bytes": sum(tables)}
        print(json.dumps({"directory": str(cache.directory()), **counts, **of_tables}))
    else:
        sizes = f"{len(programs)} programs, {sum(programs) / 1024:.0f} KiB"
        if tables:
            sizes += f"; {len(tables)} tables for stacks, {sum(tables) / 1024:.0f} KiB"
        print(f"{cache.directory()}: {sizes}")
        if options.clear:
            print(f"{removed} removed")
        if options.add:
            print(f"{added} added")
    return 0


def _sizes(kind: cache.Kind) -> list[int]:
    return [status.st_size for _, status in cache.entries(kind)]


def add(path: Path) -> int:
    """Add the programs of a bundle, and return how many. All of them are checked before the first is stored."""
    from usdtkit.bpf import bundle, compiler

    entries = bundle.read(path).entries
    if not all(map(compiler.is_bytecode, entries.values())):
        raise UsdtkitError(f"{path} contains something other than a program", hint="make one with usdtkit bundle")
    return _keep(entries)


def fill() -> int:
    """Make the programs of all tools that are not there yet, and return how many there are."""
    from usdtkit.cli.bundle import compile_all, programs_of_tools

    _refuse(cache.problem())  # before they are made, which bcc may take minutes for
    return _keep(dict(compile_all(programs_of_tools()).values()))


def _keep(entries: Mapping[str, bytes]) -> int:
    for key, content in entries.items():
        if not (problem := cache.problem()):
            cache.store(key, content)
        if problem or cache.load(key) != content:
            _refuse(problem or "it is full, or cannot be written")
    return len(entries)


def _refuse(problem: str) -> None:
    if problem:
        raise UsdtkitError(
            f"{cache.directory()} cannot store programs: {problem}",
            hint="make it yours alone (chmod 700), on a disk with free space; USDTKIT_CACHE names another",
        )
