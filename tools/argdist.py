"""Count the values of arguments, returns and latencies, or make histograms of them.

A SPEC is  TARGET(SIGNATURE)[:TYPES:VALUES[:CONDITION]][#LABEL]  in the language of bcc's argdist; a TARGET is
  p:LIBRARY:FUNCTION         a function's entry
  r:LIBRARY:FUNCTION         its return, with $retval, $latency (ns) and $entry(what an argument was)
  u:LIBRARY:PROVIDER:PROBE   a USDT probe, with arg1 … or the names of its arguments; without PROVIDER too
docs/language.md has the whole language. Here -c is --cumulative, as in bcc; a command to trace is --command.

examples:
  usdtkit argdist -C 'p:c:write(int fd, void *buf, size_t count):int:fd'
  usdtkit argdist -H 'r:c:malloc(size_t size):size_t:$entry(size)' -p 1234 -i 5
  usdtkit argdist -H 'r:c:open(char *path):u64:$latency/1000:STRCMP("/etc/passwd", $entry(path))#us to open it'
  usdtkit argdist -C 'u:mariadbd:mysql:query__start():char*:arg1' -z 64 -T 10
  usdtkit argdist -H 'p:c:read(int fd, void *buf, size_t n):size_t:n' --linear 0:65536:4096
"""

import argparse
from collections.abc import Mapping
from typing import Any

from usdtkit.cli import run as shared
from usdtkit.cli.arguments import add_filter_options, add_ignored_options, add_session_options
from usdtkit.cli.values import positive, seconds, steps
from usdtkit.errors import UsageError
from usdtkit.language.hooks import Setup, distribute
from usdtkit.output.report import Column, Report
from usdtkit.output.text import printable, show

TOPIC = "any function or probe"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit argdist`."""
    both: dict[str, Any] = {"action": "append", "dest": "specs", "metavar": "SPEC"}
    parser.add_argument("-H", "--histogram", type=lambda text: (text, True), help="a histogram of one number", **both)
    parser.add_argument("-C", "--count", type=lambda text: (text, False), help="counts by one or more values", **both)
    parser.add_argument("--linear", type=steps, metavar="LOW:HIGH:STEP", help="histograms of equal steps")
    parser.add_argument("-z", "--string-size", type=int, default=80, metavar="N", help="bytes of a string (80)")
    parser.add_argument("-i", "--interval", type=seconds, default=1.0, metavar="SEC", help="seconds, else 1")
    parser.add_argument("-n", "--number", dest="intervals", type=positive, metavar="N", help="so many times")
    parser.add_argument("-c", "--cumulative", action="store_true", help="since the start, not since the last output")
    parser.add_argument("-T", "--top", type=positive, metavar="N", help="only the N highest counts")
    add_ignored_options(parser, {"-I --include": "types are known, or not needed"}, takes_value=True)
    add_filter_options(parser, tid="-t")
    add_session_options(parser, command=("--command",), chosen=True, shows_program=True)
    parser.set_defaults(timestamp=True)


def run(options: argparse.Namespace) -> int:
    """Count until told to stop."""
    if not options.specs:
        raise UsageError("nothing to count", hint="-C SPEC or -H SPEC; usdtkit argdist -h shows examples")
    with shared.new_session(options, string_size=options.string_size) as session:
        setup = Setup(session, lambda source: shared.filtered(source, options), options.string_size)
        chosen = [
            (distribute(setup, text, histogram=histogram, linear=options.linear), histogram)
            for text, histogram in options.specs
        ]

        def write(report: Report) -> None:
            for found, histogram in chosen:
                if histogram:
                    values = found.distribution(cumulative=options.cumulative)
                    report.distribution(values, found.names[0], spec=found.title)
                    continue
                rows = found.counts(cumulative=options.cumulative)[-(options.top or 0) :]
                named = ({"key": dict(zip(found.names, key, strict=False)), "count": count} for key, count in rows)
                report.block([{"spec": found.title, **row} for row in named], title=found.title)

        columns = [Column("COUNT", "count", 10, right=True), Column("EVENT", "key", 0, event)]
        return shared.follow_intervals(session, options, "argdist", columns, write)


def event(key: Mapping[str, Any]) -> str:
    """fd = 3, size = 16"""
    return ", ".join(f"{printable(name)} = {show(value)}" for name, value in key.items()) or "total calls"
