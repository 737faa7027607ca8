"""Print every hit of a probe or function, its arguments by name.

A SPEC is
  PROVIDER:PROBE           a USDT probe, in provider files and running processes (or those of -p); globs allowed
  u:PATH:PROVIDER:PROBE    in this file, command or library
  p:LIBRARY:FUNCTION       a function's entry; LIBRARY is a path, a command or a short name such as c
  r:LIBRARY:FUNCTION       a function's return, with its return value

examples:
  usdtkit trace shop:order__start
  usdtkit trace 'shop:*' -p 1234 --json
  usdtkit trace u:mariadbd:mysql:query__start
  usdtkit trace p:c:getaddrinfo r:c:getaddrinfo -d 10
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from usdtkit.cli.run import add_filter_options, add_session_options, filtered, follow, new_session
from usdtkit.errors import UsageError
from usdtkit.model import Probe
from usdtkit.output.report import COMM, PID, TIME, Column
from usdtkit.output.text import show
from usdtkit.trace import Session, Source, comm, uprobe, uretprobe
from usdtkit.trace.specs import resolve_probes


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit trace`."""
    parser.add_argument("spec", nargs="+", metavar="SPEC", help="what to trace")
    parser.add_argument("-Z", "--string-size", type=int, default=128, metavar="N", help="bytes of a string (128)")
    add_filter_options(parser, tid="-L")
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    columns = [TIME, PID, COMM, Column("PROBE", "probe", 24), Column("ARGUMENTS", "arguments", 0, arguments_text)]
    with new_session(options, string_size=options.string_size) as session:
        for spec in options.spec:
            for source in _sources(session, spec):
                filtered(source, options).emit(comm=comm, **source.everything())
        return follow(session, options, "trace", columns, describe=describe)


def describe(event: Any) -> dict[str, Any]:
    """A row: the event's header, and its other fields as one value."""
    values = event._asdict()
    header = {name: values.pop(name) for name in ("time_ns", "pid", "tid", "comm", "probe")}
    return {**header, "arguments": values}


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """order_id=42 customer="ada"."""
    return " ".join(
        f'{name}="{show(v)}"' if isinstance(v, str) else f"{name}={show(v)}" for name, v in arguments.items()
    )


def _sources(session: Session, spec: str) -> Iterator[Source]:
    kind, _, rest = spec.partition(":")
    match kind, rest.split(":"):
        case (("p" | "r"), [library, function]):
            of = uprobe if kind == "p" else uretprobe
            yield session.source(of(library, function))
        case "u", [path, provider, probe]:
            yield from _usdt(session, f"{provider}:{probe}", path or None)
        case _, [_]:
            yield from _usdt(session, spec, None)
        case _:
            raise UsageError(
                f"{spec!r} is no probe",
                hint="PROVIDER:PROBE, u:PATH:PROVIDER:PROBE, p:LIBRARY:FUNCTION, r:LIBRARY:FUNCTION",
            )


def _usdt(session: Session, name: str, path: str | None) -> Iterator[Source]:
    """A source for each probe of a glob, because each has arguments of its own."""

    def order(probe: Probe) -> tuple[str, str]:
        return probe.spec, repr(probe.arguments)

    found = sorted(session.find_probes(name, path), key=order)
    for (spec, _), probes in groupby(found, order):
        yield session.source(resolve_probes(spec, list(probes)))
