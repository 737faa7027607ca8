"""TLS libraries (OpenSSL, GnuTLS, NSS): a session in, the plain data that goes through them and their handshakes out.

    from usdtkit import trace
    from usdtkit.providers import tls
    from usdtkit.trace import latency, us

    with trace.Session(pid=4711) as session:
        tls.transfers(session).where(latency > us(1)).emit("latency", "length")
        event = next(event for event in session if tls.direction(event.probe) == "WRITE/SEND")
        print(event.length, event.latency_ns > 1_000)

The data itself is read from the process only if `size` is not 0, because the encryption is there to protect it. Stands
on `usdtkit.trace`; `usdtkit.providers.tlslibraries` says which functions these are, and finds their files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from usdtkit.providers.tlslibraries import BY_FUNCTION, NAMES, find_files, together
from usdtkit.records import dataclass
from usdtkit.trace import Expression, Pair, Session, Source, Sources, arg, buffer, deref, retval

__all__ = ["NAMES", "Handshakes", "describe", "direction", "handshakes", "is_transfer", "transfers"]

MAX_HANDLES = 10_000
NOT_FINISHED = "not finished"


def transfers(
    session: Session, libraries: Sequence[str] = NAMES, extra: Sequence[tuple[str, str]] = (), *, size: int = 0
) -> Sources[Pair]:
    """The calls that read or write plain data; calls that transferred nothing are left out.

    Each has a `latency` and these values: `comm`, `uid`, `length` in bytes and, if `size` is not 0, `content`: the
    first `size` bytes of the data. Events name the function as `probe`; `describe` makes rows of what `emit()` sends.

    `libraries` are names out of NAMES. Their functions are looked for in the files that the session's processes map. If
    it traces all processes or a command, they are also looked for in the libraries that the loader would find, and in
    the command. `extra` are (library, path) of further files. NotFoundError is raised if no file has them, or an extra
    one has not.
    """
    files = find_files(session, libraries, extra, handshakes=False)
    returned = retval.cast("i32")
    kept = {"buffer": arg(2)} if size else {}
    plain = session.pair(together(files, lambda library, _: (*library.reads, *library.writes)), keep=kept)
    counted = session.pair(
        together(files, lambda library, _: (*library.counted_reads, *library.counted_writes)),
        keep={"counted": arg(4), **kept},
    )
    return Sources(
        _with_length(plain.where(returned > 0), returned, size),
        _with_length(counted.where(returned == 1), deref(counted.kept("counted")), size),
    )


def _with_length(calls: Pair, length: Expression, size: int) -> Pair:
    content = {"content": buffer(calls.kept("buffer"), length, size)} if size else {}
    return calls.derive("comm", "uid", length=length, **content)


def direction(function: str) -> str:
    """Which way a function transfers data, in the words of bcc's sslsniff: READ/RECV or WRITE/SEND."""
    library = BY_FUNCTION[function]
    return "READ/RECV" if function in (*library.reads, *library.counted_reads) else "WRITE/SEND"


def is_transfer(event: Any) -> bool:
    """Whether an event is one of `transfers`, and not one of `handshakes`."""
    return event.probe in BY_FUNCTION[event.probe].transfers


def describe(event: Any) -> dict[str, Any]:
    """A transfer as a row: its event, with the `library` and, as `function`, its direction."""
    row: dict[str, Any] = event._asdict()
    function = row.pop("probe")
    return {**row, "function": direction(function), "library": BY_FUNCTION[function].name}


def handshakes(
    session: Session, libraries: Sequence[str] = NAMES, extra: Sequence[tuple[str, str]] = ()
) -> Sources[Source]:
    """The calls that make the steps of a handshake, and those that free its handle; `Handshakes` makes rows of both.

    One handshake takes several calls if the socket does not block, so a condition on the latency of one call says
    little. `libraries` and `extra` are those of `transfers`. NotFoundError.
    """
    files = find_files(session, libraries, extra, handshakes=True)
    steps = session.pair(
        # If a file shows the state machine, that is enough: everything else goes through it.
        together(files, lambda library, names: tuple(names & {*library.state_machine}) or library.handshake),
        keep={"handle": arg(1)},
    )
    ends = session.source(together(files, lambda library, _: library.releases))
    return Sources(
        steps.derive("handle", "comm", "uid", returned=retval.cast("i32")),
        ends.derive(handle=arg(1)),
    )


@dataclass
class _Handshake:
    start_ns: int
    busy_ns: int = 0
    calls: int = 0
    done: bool = False
    last_call: Any = None


class Handshakes:
    """Makes rows of the events of `handshakes`, by keeping account of the handshakes under way in all processes.

    The first handshake of a handle that is completed counts. If the handle ends before, its handshake has failed. Of
    handles that are never ended, the latest MAX_HANDLES are remembered.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], _Handshake] = {}

    def describe(self, event: Any) -> dict[str, Any] | None:
        """The row of the handshake that an event ends; None if it ends none.

        `latency_ns` is the time from the first call to the last return, `busy_ns` the time within the calls. `result`
        is "ok", NOT_FINISHED, or "error" and the number that the library returned.
        """
        key = (event.pid, event.handle)
        library = BY_FUNCTION[event.probe]
        if event.probe in library.releases:
            ended = self._open.pop(key, None)
            return _row(ended, event, NOT_FINISHED) if ended is not None and not ended.done else None
        handshake = self._open.setdefault(key, _Handshake(event.time_ns - event.latency_ns))
        if handshake.done:
            return None
        if len(self._open) > MAX_HANDLES:
            del self._open[next(iter(self._open))]
        handshake.calls += 1
        handshake.busy_ns += event.latency_ns
        handshake.last_call = event
        if event.returned == library.done:
            handshake.done = True
            if not library.releases:  # nothing says when the handle begins to belong to another connection
                del self._open[key]
            return _row(handshake, event, "ok")
        if event.returned not in library.retry:
            del self._open[key]
            return _row(handshake, event, f"error {event.returned}")
        return None


def _row(handshake: _Handshake, end: Any, result: str) -> dict[str, Any]:
    call = handshake.last_call
    more = {"pycaller": call.pycaller} if "pycaller" in call._fields else {}
    return {
        **{"time_ns": end.time_ns, "pid": call.pid, "tid": call.tid, "comm": call.comm, "uid": call.uid},
        **{"library": BY_FUNCTION[call.probe].name, "latency_ns": end.time_ns - handshake.start_ns},
        **{"busy_ns": handshake.busy_ns, "calls": handshake.calls, "result": result},
        **more,
    }
