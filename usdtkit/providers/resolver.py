"""Look-ups of host names and addresses by the C library: a session in, calls with their question and result out.

    from usdtkit import trace
    from usdtkit.providers import resolver
    from usdtkit.trace import latency, us

    with trace.Session(pid=4711) as session:
        resolver.lookups(session).where(latency > us(1)).emit()
        row = resolver.describe(next(iter(session)))
        print(row["function"], row["host"], row["result"])

Traces getaddrinfo, gethostbyname, gethostbyname2, gethostbyaddr, their reentrant forms and getnameinfo. If the C
library implements one of these by another, as glibc implements gethostbyname by gethostbyname_r, both calls are seen,
and the inner one returns first. Uses `usdtkit.trace`.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from usdtkit.trace import Expression, Pair, Session, Sources, arg, buffer, cstr, deref, retval, uprobe

# What getaddrinfo and getnameinfo return, as glibc's netdb.h numbers it.
GAI_ERRORS = {
    -1: "EAI_BADFLAGS",
    -2: "EAI_NONAME",
    -3: "EAI_AGAIN",
    -4: "EAI_FAIL",
    -5: "EAI_NODATA",
    -6: "EAI_FAMILY",
    -7: "EAI_SOCKTYPE",
    -8: "EAI_SERVICE",
    -9: "EAI_ADDRFAMILY",
    -10: "EAI_MEMORY",
    -11: "EAI_SYSTEM",
    -12: "EAI_OVERFLOW",
}
# These functions return a pointer, which is NULL when they fail. All others return an error number, or 0.
RETURN_POINTERS = ("gethostbyname", "gethostbyname2", "gethostbyaddr")
AF_INET, AF_INET6 = 2, 10
SOCKADDR_IN6_SIZE = 28  # a struct sockaddr for IPv4 is smaller

Question = Mapping[str, Expression]


def lookups(session: Session) -> Sources[Pair]:
    """The look-ups of every C library that is mapped, or of those that the session's processes map.

    Each has a `latency` and these values: `comm`; `asked`, a string, or the bytes of an address; `returned`, the return
    register as it is. `emit()` sends them together with what `describe` needs besides. NotFoundError is raised when the
    session starts, if none of the functions was found.
    """
    name: Question = {"asked": cstr(arg(1))}
    address: Question = {"asked": buffer(arg(1), arg(2), 16), "family": arg(3).cast("i32")}
    socket_address: Question = {"asked": buffer(arg(1), arg(2), SOCKADDR_IN6_SIZE)}
    return Sources(
        _calls(session, ("getaddrinfo", "gethostbyname", "gethostbyname2"), name),
        _calls(session, ("gethostbyname_r",), name, answer=5),
        _calls(session, ("gethostbyname2_r",), name, answer=6),
        _calls(session, ("gethostbyaddr",), address),
        _calls(session, ("gethostbyaddr_r",), address, answer=7),
        _calls(session, ("getnameinfo",), socket_address),
    )


def _calls(session: Session, functions: tuple[str, ...], question: Question, answer: int = 0) -> Pair:
    """Calls of functions that take the same question; `answer` is the number of the argument that points to the answer.

    A reentrant function that finds nothing returns 0, as if it had succeeded, and leaves NULL for the answer.
    """
    # Another C library than glibc, or a program that is linked statically, has only some of the functions.
    places = session.optional(uprobe("c", *functions))
    kept = {**question, **({"answer": arg(answer)} if answer else {})}
    calls = session.pair(places, keep=kept)
    found: Question = {"found": deref(calls.kept("answer")) != 0} if answer else {}
    return calls.derive("comm", *question, returned=retval, **found)


def describe(event: Any) -> dict[str, Any]:
    """A look-up as a row: its event with `host`, `function`, `returned` and `result` in place of the raw values.

    `host` is the name or the address as people write it, and None if it could not be read; `result` is what `meaning`
    says of `returned`.
    """
    row: dict[str, Any] = event._asdict()
    asked, family = row.pop("asked"), row.pop("family", None)
    row["host"] = address_text(asked, family) if isinstance(asked, bytes) else asked
    row["function"] = row.pop("probe")
    row["returned"], row["result"] = meaning(event.probe, event.returned, found=row.pop("found", True))
    return row


def meaning(function: str, returned: int, *, found: bool = True) -> tuple[int, str]:
    """The meaning of a function's return value, as a pair: the value in its C type, and its meaning in words.

    `found` says whether a reentrant function that returned 0 has set the answer.
    """
    if function in RETURN_POINTERS:
        return returned, "ok" if returned else "failed"
    code = (returned + 2**31) % 2**32 - 2**31
    if code == 0:
        return code, "ok" if found else "not found"
    names = GAI_ERRORS if function in ("getaddrinfo", "getnameinfo") else errno.errorcode
    return code, names.get(code, f"error {code}")


def address_text(data: bytes, family: int | None = None) -> str:
    """The bytes of an address as people write it; without `family`, those of a struct sockaddr.

    An address of another family than IPv4 and IPv6, or one that was cut off, comes out in hexadecimal.
    """
    import ipaddress  # imported when an address is seen: it costs several milliseconds, and most look-ups are by name

    if family is None:
        family = int.from_bytes(data[:2], "little")
        data = data[4:8] if family == AF_INET else data[8:24]
    try:
        return str(ipaddress.ip_address(bytes(data))) if family in (AF_INET, AF_INET6) else data.hex()
    except ValueError:
        return data.hex()
