"""Show how long host name look-ups take, and what they returned.

Traces getaddrinfo, gethostbyname, gethostbyname2, gethostbyaddr, their reentrant forms and getnameinfo in the system's
C library, or with -p in every C library that the process maps. Where the C library implements one of them by another
(glibc's gethostbyname by gethostbyname_r), both are shown, the inner one first. A line appears when a look-up returns.

examples:
  usdtkit gethostlatency
  usdtkit gethostlatency -p 1234 -m 10      look-ups of 10 ms or longer
  usdtkit gethostlatency --json
"""

import argparse
from collections.abc import Mapping
from typing import Any

from usdtkit.cli.run import add_session_options, follow, new_session
from usdtkit.output.report import COMM, LATENCY_MS, PID, TIME, Column
from usdtkit.providers.libc import GAI_ERRORS
from usdtkit.trace import Expression, arg, buffer, comm, cstr, ms, retval, uprobe

BY_NAME = ("getaddrinfo", "gethostbyname", "gethostbyname_r", "gethostbyname2", "gethostbyname2_r")
BY_ADDRESS = ("gethostbyaddr", "gethostbyaddr_r")
# These return a pointer, NULL for failure; all others an error number, 0 for success.
RETURN_POINTERS = ("gethostbyname", "gethostbyname2", "gethostbyaddr")
AF_INET, AF_INET6 = 2, 10
SOCKADDR_IN6_SIZE = 28  # larger than that of an IPv4 address
COLUMNS = [TIME, PID, COMM, LATENCY_MS, Column("RESULT", "result", 12), Column("HOST", "host", 0)]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit gethostlatency`."""
    parser.add_argument("-m", "--min-ms", type=float, default=0.0, metavar="MS", help="only look-ups this long")
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    with new_session(options) as session:
        keeps: tuple[tuple[tuple[str, ...], dict[str, Expression]], ...] = (
            (BY_NAME, {"host": cstr(arg(1))}),
            (BY_ADDRESS, {"address": buffer(arg(1), arg(2), 16), "family": arg(3).cast("i32")}),
            (("getnameinfo",), {"address": buffer(arg(1), arg(2), SOCKADDR_IN6_SIZE)}),
        )
        for functions, keep in keeps:
            calls = session.pair(uprobe("c", *functions), keep=keep)
            if options.min_ms:
                calls = calls.where(calls.latency >= ms(options.min_ms))
            calls.emit("latency", *keep, comm=comm, returned=retval)
        return follow(session, options, "gethostlatency", COLUMNS, describe=describe)


def describe(event: Any) -> Mapping[str, Any]:
    """A row of an event: the address in words, and what the return value means."""
    row: dict[str, Any] = event._asdict()
    address, family = row.pop("address", None), row.pop("family", None)
    if address is not None:
        row["host"] = address_text(address, family)
    row["function"] = row.pop("probe")
    row["returned"], row["result"] = meaning(event.probe, event.returned)
    return row


def meaning(function: str, returned: int) -> tuple[int, str]:
    """(the return value as the C type has it, in words)."""
    if function in RETURN_POINTERS:
        return returned, "ok" if returned else "failed"
    code = (returned + 2**31) % 2**32 - 2**31
    errors = GAI_ERRORS if function in ("getaddrinfo", "getnameinfo") else {}
    return code, errors.get(code, f"error {code}") if code else "ok"


def address_text(data: bytes, family: int | None) -> str:
    """An address, or without `family` a struct sockaddr, as people write it."""
    import ipaddress  # only for look-ups by address, and dear at the start

    if family is None:
        family = int.from_bytes(data[:2], "little")
        data = data[4:8] if family == AF_INET else data[8:24]
    try:
        return str(ipaddress.ip_address(bytes(data))) if family in (AF_INET, AF_INET6) else data.hex()
    except ValueError:
        return data.hex()
