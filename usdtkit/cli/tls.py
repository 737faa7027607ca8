"""What the tools for TLS share: the files that have a TLS library in them, what goes through it, and its handshakes.

Input: the tools' options, and the functions of `usdtkit.signatures.tls`. Output: sources of a session, and rows.
Without -p the files are the libraries that the loader would find, and whatever runs now and has the functions in it,
such as a container's library, or Node.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from usdtkit import targets
from usdtkit.cli.run import filtered
from usdtkit.errors import NotFoundError
from usdtkit.model import Function, UserPlace
from usdtkit.records import dataclass
from usdtkit.signatures.tls import LIBRARIES, OPENSSL_STATE_MACHINE, Library
from usdtkit.trace import Expression, Session, arg, buffer, comm, deref, retval, uid, uprobe
from usdtkit.trace.specs import Resolved

MAX_HANDLES = 10_000
Names = Sequence[str]
File = tuple[Library, Sequence[Function]]
Part = Callable[[Library], tuple[str, tuple[str, ...]]]
"""Of a library, the short name of a file and the functions in it that are wanted."""


def add_library_options(parser: argparse.ArgumentParser, letters: Sequence[str] = ("", "", "")) -> None:
    """--no-openssl, --no-gnutls, --no-nss, which a tool may give letters, and --extra-lib."""
    for library, letter in zip(LIBRARIES, letters, strict=True):
        flags = [f"-{letter}"] if letter else []
        parser.add_argument(*flags, f"--no-{library.name}", action="store_true", help=f"without {library.name}")
    parser.add_argument(
        "--extra-lib", type=extra_library, action="append", metavar="KIND:PATH", help="this file too: openssl:/path/…"
    )


def extra_library(text: str) -> tuple[str, str]:
    """For argparse: the kind of library, and the file that has it."""
    kind, _, path = text.partition(":")
    kinds = [library.name for library in LIBRARIES]
    if kind not in kinds or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND:PATH, KIND one of {', '.join(kinds)}")
    return kind, path


def trace_transfers(session: Session, options: argparse.Namespace, size: int) -> None:
    """Events of what was read and written in plain: `length` bytes, with a `size` so much of them as `content`.

    NotFoundError where no file has the functions.
    """
    files = _files(options, _transfers)
    for counted in (False, True):
        functions = _together(files, _counted if counted else _plain)
        kept: dict[str, Expression] = {"counted": arg(4)} if counted else {}
        calls = session.pair(functions, keep={**kept, **({"buffer": arg(2)} if size else {})})
        returned = retval.cast("i32")
        length: Expression = deref(calls.kept("counted")) if counted else returned
        content = {"content": buffer(calls.kept("buffer"), length, size)} if size else {}
        done = filtered(calls.where(returned == 1 if counted else returned > 0), options)
        done.emit("latency", comm=comm, uid=uid, length=length, **content)


def trace_handshakes(session: Session, options: argparse.Namespace) -> None:
    """Events of each call that carries a handshake on, and of the end of its handle; `Handshakes` makes rows of them.

    NotFoundError where no file has the functions.
    """
    files = _files(options, _handshakes)
    calls = session.pair(_together(files, _steps), keep={"handle": arg(1)})
    filtered(calls, options).emit("latency", "handle", comm=comm, uid=uid, returned=retval.cast("i32"))
    ends = session.source(_together(files, lambda library, names: _among(names, library.ends)))
    filtered(ends, options).emit(handle=arg(1))


@dataclass
class _Handshake:
    start_ns: int
    busy_ns: int = 0
    calls: int = 0
    done: bool = False
    event: Any = None


class Handshakes:
    """The handshakes under way in all processes, by handle.

    One takes several calls where the socket does not block. The first of a handle that is finished counts; a handle
    that ends before is a handshake that failed. Of handles that nobody ends, the latest are known.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], _Handshake] = {}

    def describe(self, event: Any) -> dict[str, Any] | None:
        """A row when an event ends a handshake; None for all others."""
        key = (event.pid, event.handle)
        library = _BY_FUNCTION[event.probe]
        if event.probe in library.ends:
            ended = self._open.pop(key, None)
            return self._row(ended, event, "not finished") if ended is not None and not ended.done else None
        handshake = self._open.setdefault(key, _Handshake(event.time_ns - event.latency_ns))
        if handshake.done:
            return None
        if len(self._open) > MAX_HANDLES:
            del self._open[next(iter(self._open))]
        handshake.calls += 1
        handshake.busy_ns += event.latency_ns
        handshake.event = event
        if event.returned == library.done:
            handshake.done = True
            if not library.ends:  # nobody would say when the handle is another connection's
                del self._open[key]
            return self._row(handshake, event, "ok")
        if event.returned not in library.again:
            del self._open[key]
            return self._row(handshake, event, f"error {event.returned}")
        return None

    def _row(self, handshake: _Handshake, end: Any, result: str) -> dict[str, Any]:
        last = handshake.event
        return {
            **{"time_ns": end.time_ns, "pid": last.pid, "tid": last.tid, "comm": last.comm, "uid": last.uid},
            **{"library": _BY_FUNCTION[last.probe].name, "latency_ns": end.time_ns - handshake.start_ns},
            **{"busy_ns": handshake.busy_ns, "calls": handshake.calls, "result": result},
        }


def direction(function: str) -> str:
    """What a function does, as bcc's sslsniff says it."""
    library = _BY_FUNCTION[function]
    return "READ/RECV" if function in (*library.reads, *library.counted_reads) else "WRITE/SEND"


def library_of(function: str) -> str:
    """The name of the library that a function is of."""
    return _BY_FUNCTION[function].name


def _among(names: Names, wanted: Names) -> Names:
    return [name for name in wanted if name in names]


def _plain(library: Library, names: Names) -> Names:
    return _among(names, (*library.reads, *library.writes))


def _counted(library: Library, names: Names) -> Names:
    return _among(names, (*library.counted_reads, *library.counted_writes))


def _steps(library: Library, names: Names) -> Names:
    """What carries a handshake on: the state machine where it can be seen, as all else goes through it."""
    machine = OPENSSL_STATE_MACHINE if library.name == "openssl" else ()
    return _among(names, machine) or _among(names, library.handshake)


def _together(files: Sequence[File], choose: Callable[[Library, Names], Names]) -> Resolved:
    """The chosen functions of all files as one source: the program is the same, whichever libraries there are."""
    places: list[UserPlace] = []
    for library, functions in files:
        own = choose(library, [function.name for function in functions])
        chosen = [function for function in functions if function.name in own]
        if chosen:
            places += uprobe(chosen[0].path, *own).of(chosen).places
    return Resolved("the functions of TLS libraries", "entry", (), tuple(places))


def _transfers(library: Library) -> tuple[str, tuple[str, ...]]:
    return library.library, (*library.reads, *library.writes, *library.counted_reads, *library.counted_writes)


def _handshakes(library: Library) -> tuple[str, tuple[str, ...]]:
    machine = OPENSSL_STATE_MACHINE if library.name == "openssl" else ()
    return library.handshake_library, (*library.handshake, *machine, *library.ends)


_BY_FUNCTION = {
    name: library for library in LIBRARIES for part in (_transfers, _handshakes) for name in part(library)[1]
}


def _files(options: argparse.Namespace, part: Part) -> list[File]:
    """Each file with a library in it, with the wanted functions that it has; by heart there are none."""
    if options.by_heart:
        return []
    chosen = [library for library in LIBRARIES if not getattr(options, f"no_{library.name}")]
    wanted = [name for library in chosen for name in part(library)[1]]
    running = targets.defining(wanted, pids=options.pid or ())
    seen = {functions[0].file for functions in running}
    found: list[File] = [
        (library, own)
        for functions in running
        for library in chosen
        if (own := [function for function in functions if function.name in part(library)[1]])
    ]
    named = [(library, path) for library in chosen for kind, path in options.extra_lib or () if kind == library.name]
    if not options.pid:
        named += [(library, part(library)[0]) for library in chosen]
        named += [(library, word) for library in chosen for word in (options.command or ())[:1]]
    for library, path in named:
        required = any(path == extra for _, extra in options.extra_lib or ())
        try:
            functions = targets.find_functions(path, part(library)[1])
        except NotFoundError:
            if required:
                raise
            continue
        if functions[0].file not in seen:
            seen.add(functions[0].file)
            found.append((library, functions))
    if not found:
        names = " or ".join(library.name for library in chosen)
        raise NotFoundError(
            f"{'no such process' if options.pid else 'nothing here'} has the functions of {names}",
            hint="--extra-lib openssl:PATH names a file that has them; a stripped program does not say where they are",
        )
    return found
