"""Show, fill or clear the cache of compiled programs.

A tool whose program is in the cache starts without a compiler. Entries are private to the user. When the cache becomes
too large, the least recently used entries are removed. --add takes in a bundle of programs (see `usdtkit bundle`). They
will run in the kernel, so add only bundles from people whom you trust.

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
    what.add_argument("--add", type=Path, metavar="FILE", help="take in the programs of a bundle")
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
    """Take in the programs of a bundle, and return how many. All are checked before the first one is kept."""
    from usdtkit.bpf import bundle, compiler

    entries = bundle.read(path).entries
    if not all(map(compiler.is_bytecode, entries.values())):
        raise UsdtkitError(f"{path} holds something that is no program", hint="usdtkit bundle makes one")
    problem = cache.problem()
    for key, content in entries.items():
        if not problem:
            cache.store(key, content)
        if problem or cache.load(key) != content:
            raise UsdtkitError(
                f"{cache.directory()} takes no programs{': ' if problem else ''}{problem}",
                hint="a directory of yours alone (chmod 700), on a disk with room; USDTKIT_CACHE names another",
            )
    return len(entries)
