"""Show how long host name look-ups take, and what they returned.

Traces getaddrinfo, gethostbyname, gethostbyname2, gethostbyaddr, their reentrant forms and getnameinfo in every C
library that is mapped, or with -p that the process maps, also where it was linked into the program. Where the C library
implements one of them by another (glibc's gethostbyname by gethostbyname_r), both are shown, the inner one first. A
line appears when a look-up returns.

examples:
  usdtkit gethostlatency
  usdtkit gethostlatency -p 1234 -m 10      look-ups of 10 ms or longer
  usdtkit gethostlatency --json
"""

import errno
from collections.abc import Mapping
from typing import Any

from usdtkit.cli.options import ToolOptions, option
from usdtkit.cli.values import milliseconds
from usdtkit.records import replace
from usdtkit.results import COMM, LATENCY_MS, PID, TID, TIME, Column, Rows
from usdtkit.signatures.libc import GAI_ERRORS
from usdtkit.trace import Expression, Session, arg, buffer, comm, cstr, deref, ms, retval, uprobe

TOPIC = "names, logins and secrets"
VARIANTS = ("", "-m 1")

Fields = dict[str, Expression]

# By the host: functions, and the number of the argument that says where the reentrant ones put their answer.
BY_NAME = (
    (("getaddrinfo", "gethostbyname", "gethostbyname2"), 0),
    (("gethostbyname_r",), 5),
    (("gethostbyname2_r",), 6),
)
BY_ADDRESS = ((("gethostbyaddr",), 0), (("gethostbyaddr_r",), 7))
# These return a pointer, NULL for failure; all others an error number, 0 for success.
RETURN_POINTERS = ("gethostbyname", "gethostbyname2", "gethostbyaddr")
AF_INET, AF_INET6 = 2, 10
SOCKADDR_IN6_SIZE = 28  # larger than that of an IPv4 address

COLUMNS = (
    *(TIME, PID, COMM, LATENCY_MS, replace(TID, heading="")),
    Column("function", "FUNCTION", width=16, meaning="the function that was called"),
    Column("result", "RESULT", width=10, meaning="ok, not found, failed, EAI_…, or an errno"),
    Column("host", "HOST", "text", meaning="the name or address that was asked for"),
    Column("returned", type="integer", meaning="the value that the function returned"),
)


class Options(ToolOptions):
    """Options of `usdtkit gethostlatency`."""

    min_ms: float = option(
        *("-m", "--min-ms"),
        type=milliseconds,
        default=0.0,
        metavar="MS",
        help="show look-ups of MS ms or more",
    )


def trace(session: Session, options: Options) -> Rows:
    """Trace look-ups; a row when one returns."""
    host: Fields = {"host": cstr(arg(1))}
    address: Fields = {"address": buffer(arg(1), arg(2), 16), "family": arg(3).cast("i32")}
    socket_address: Fields = {"address": buffer(arg(1), arg(2), SOCKADDR_IN6_SIZE)}
    for functions, answer in BY_NAME:
        trace_calls(session, functions, host, answer, options.min_ms)
    for functions, answer in BY_ADDRESS:
        trace_calls(session, functions, address, answer, options.min_ms)
    trace_calls(session, ("getnameinfo",), socket_address, 0, options.min_ms)
    return Rows(session, COLUMNS, describe)


def trace_calls(session: Session, functions: tuple[str, ...], asked: Fields, answer: int, min_ms: float) -> None:
    """Send an event for each call, with what was asked; `answer` is the number of the argument for the answer, or 0."""
    found_here = session.optional(uprobe("c", *functions))  # another C library, or a static program, has not all
    calls = session.pair(found_here, keep={**asked, **({"answer": arg(answer)} if answer else {})})
    if min_ms:
        calls = calls.where(calls.latency >= ms(min_ms))
    # A reentrant function that finds nothing returns 0 as well, and leaves NULL for the answer.
    found: Fields = {"found": deref(calls.kept("answer")) != 0} if answer else {}
    calls.emit("latency", *asked, comm=comm, returned=retval, **found)


def describe(event: Any) -> Mapping[str, Any]:
    """A row of an event: the address in words, and what the return value means."""
    row: dict[str, Any] = event._asdict()
    if "address" in row:
        row["host"] = address_text(row.pop("address"), row.pop("family", None))
    row["function"] = row.pop("probe")
    row["returned"], row["result"] = meaning(event.probe, event.returned, row.pop("found", True))
    return row


def meaning(function: str, returned: int, found: bool) -> tuple[int, str]:
    """(the return value as the C type has it, in words)."""
    if function in RETURN_POINTERS:
        return returned, "ok" if returned else "failed"
    code = (returned + 2**31) % 2**32 - 2**31
    if code == 0:
        return code, "ok" if found else "not found"
    names = GAI_ERRORS if function in ("getaddrinfo", "getnameinfo") else errno.errorcode
    return code, names.get(code, f"error {code}")


def address_text(data: bytes | None, family: int | None) -> str | None:
    """An address, or without `family` a struct sockaddr, as people write it; None where it could not be read."""
    if data is None:
        return None
    import ipaddress  # only for look-ups by address, and dear at the start

    if family is None:
        family = int.from_bytes(data[:2], "little")
        data = data[4:8] if family == AF_INET else data[8:24]
    try:
        return str(ipaddress.ip_address(bytes(data))) if family in (AF_INET, AF_INET6) else data.hex()
    except ValueError:
        return data.hex()
