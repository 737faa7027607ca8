"""Show, fill or clear the cache of compiled programs.

A tool whose program is in the cache starts without a compiler. Entries are private to the user; the least recently used
are removed when the cache becomes too large. --add adds the programs of a bundle (see `usdtkit bundle`). They will
run in the kernel, so only add bundles that you trust.

examples:
  usdtkit cache
  usdtkit cache --add tools.bundle
  usdtkit cache --clear
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from usdtkit.bpf import cache
from usdtkit.errors import UsdtkitError


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit cache`."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--clear", action="store_true", help="remove all entries")
    what.add_argument("--add", type=Path, metavar="FILE", help="add the programs of a bundle")
    parser.add_argument("--json", action="store_true", help="JSON Lines")


def run(options: argparse.Namespace) -> int:
    """Show, fill or clear."""
    removed = cache.clear() if options.clear else 0
    added = 0 if options.add is None else add(options.add)
    found = cache.entries()
    size = sum(status.st_size for _, status in found)
    if options.json:
        print(json.dumps({"schema": "usdtkit.cache/1"}))
        counts = {"entries": len(found), "bytes": size, "removed": removed, "added": added}
        print(json.dumps({"directory": str(cache.directory()), **counts}))
    else:
        print(f"{cache.directory()}: {len(found)} programs, {size / 1024:.0f} KiB")
        if options.clear:
            print(f"{removed} removed")
        if options.add:
            print(f"{added} added")
    return 0


def add(path: Path) -> int:
    """Add the programs of a bundle, and return how many. All of them are checked before the first is stored."""
    from usdtkit.bpf import bundle, compiler

    entries = bundle.read(path).entries
    if not all(map(compiler.is_bytecode, entries.values())):
        raise UsdtkitError(f"{path} contains something other than a program", hint="make one with usdtkit bundle")
    problem = cache.problem()
    for key, content in entries.items():
        if not problem:
            cache.store(key, content)
        if problem or cache.load(key) != content:
            raise UsdtkitError(
                f"{cache.directory()} cannot store programs{': ' if problem else ''}{problem}",
                hint="make it yours alone (chmod 700), on a disk with free space; USDTKIT_CACHE names another",
            )
    return len(entries)
