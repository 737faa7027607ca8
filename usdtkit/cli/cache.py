"""Show or clear the cache of compiled programs.

A tool whose program is in the cache starts without a compiler. Entries are private to the user; the least recently used
go by themselves when the cache becomes too large.

examples:
  usdtkit cache
  usdtkit cache --clear
"""

from __future__ import annotations

import argparse
import json

from usdtkit.bpf import cache


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit cache`."""
    parser.add_argument("--clear", action="store_true", help="remove all entries")
    parser.add_argument("--json", action="store_true", help="JSON Lines")


def run(options: argparse.Namespace) -> int:
    """Show or clear."""
    removed = cache.clear() if options.clear else 0
    found = cache.entries()
    size = sum(status.st_size for _, status in found)
    if options.json:
        print(json.dumps({"schema": "usdtkit.cache/1"}))
        print(
            json.dumps({"directory": str(cache.directory()), "entries": len(found), "bytes": size, "removed": removed})
        )
    else:
        print(f"{cache.directory()}: {len(found)} programs, {size / 1024:.0f} KiB")
        if options.clear:
            print(f"{removed} removed")
    return 0
