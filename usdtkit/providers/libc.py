"""Calls of a library's functions, above all the C library's: how many, how long, and which errors.

    from usdtkit import trace
    from usdtkit.providers import libc

    with trace.Session(pid=4711) as session:
        calls = libc.LibraryCalls(session, ["rmdir", "mkdir"])
        for _ in session.intervals(0.5, calls.consume):
            if summaries := calls.summarise():
                print(summaries[0].function, "ENOENT" in summaries[0].errors)
                break

Input: names of functions, and a session. Output: a summary of each function. The kernel does not say where a thread's
errno is, but the thread itself does: C's `errno` is a call of a function that returns the address. So a failure is
remembered by thread until that call comes. Uses `usdtkit.trace`.
"""

from __future__ import annotations

import errno
import fnmatch
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from usdtkit.naming import exact
from usdtkit.providers.resolver import GAI_ERRORS
from usdtkit.records import dataclass
from usdtkit.trace import Pair, Session, deref, retval, uprobe, uretprobe

# How functions report failure, by globs of their names, of which the first that matches counts. All others return
# -1 and set errno. "code": they return the number of the error. "gai": they return a number out of GAI_ERRORS. "null":
# they return NULL and set errno. "": they do not report it.
FAILURES = (
    *((name, "") for name in ("pthread_self", "pthread_getspecific", "pthread_exit", "pthread_cleanup_*")),
    *((name, "code") for name in ("pthread_*", "posix_fallocate*", "posix_memalign", "posix_spawn*", "posix_fadvise*")),
    *((name, "code") for name in ("get*_r", "readdir*_r", "clock_nanosleep", "sem_clockwait_np", "ttyname_r")),
    *((name, "gai") for name in ("getaddrinfo", "getnameinfo")),
    *((name, "null") for name in ("malloc", "calloc", "realloc*", "memalign", "aligned_alloc", "valloc", "pvalloc")),
    *((name, "null") for name in ("strdup", "strndup", "fopen*", "fdopen", "freopen*", "popen", "tmpfile*")),
    *((name, "null") for name in ("opendir", "fdopendir", "getcwd", "realpath", "setlocale", "newlocale")),
    *((name, "") for name in ("str*", "mem*", "wcs*", "wmem*", "ato*", "is*", "to*", "*abs", "*cmp", "qsort*", "free")),
)
# This function returns where the thread's errno is; C's `errno` calls it.
ERRNO_LOCATION = "__errno_location"


@dataclass(frozen=True)
class CallSummary:
    """The calls of one function: their number, time in nanoseconds, and failed calls by the name of the error.

    "-1" and "NULL" stand for failures after which the thread did not ask for errno.
    """

    function: str
    count: int
    total_ns: int
    average_ns: int
    errors: Mapping[str, int]


class LibraryCalls:
    """Counts calls of a library's functions, by function.

    `functions` are names, globs allowed; `library` is the name of a library, a command or a file. Counts and times are
    summed up in the kernel. Failures that set errno come as events of the session, and each event must be given to
    `consume`. NotFoundError is raised if the library has none of the functions.
    """

    def __init__(self, session: Session, functions: Sequence[str], library: str = "c") -> None:
        groups = by_failure(function.name for function in session.find_functions(library, functions))
        calls = {way: session.pair(uprobe(library, *map(exact, names))) for way, names in groups.items()}
        self._times = [pair.stats("latency", "probe") for pair in calls.values()]
        self._failures = _Failures(session, calls)

    def consume(self, event: Any) -> None:
        """Take account of an event of the session."""
        self._failures.consume(event)

    def summarise(self) -> list[CallSummary]:
        """The calls since the last summary, beginning with the function that took the most time."""
        times = [(function, taken) for table in self._times for (function,), taken in table.delta().items()]
        errors = self._failures.flush()
        return [
            CallSummary(function, taken.count, taken.sum, round(taken.average), dict(errors[function].most_common()))
            for function, taken in sorted(times, key=lambda entry: -entry[1].sum)
        ]


def by_failure(functions: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """Names of functions, grouped by the way in which they report a failure: one of FAILURES, or "-1"."""
    groups: dict[str, list[str]] = defaultdict(list)
    for function in functions:
        groups[next((way for glob, way in FAILURES if fnmatch.fnmatchcase(function, glob)), "-1")].append(function)
    return groups


class _Failures:
    """Failed calls by function and error; `calls` are pairs by the way in which their functions fail."""

    def __init__(self, session: Session, calls: Mapping[str, Pair]) -> None:
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._unasked: dict[
            int, tuple[str, str]
        ] = {}  # by thread, the last failure after which it has not asked for errno
        self._in_kernel = []
        code = retval.cast("i32")
        for way, names in (("code", errno.errorcode), ("gai", GAI_ERRORS)):
            if way in calls:
                self._in_kernel.append((calls[way].where(code != 0).count("probe", code=code), names))
        for way, failure in (("-1", code == -1), ("null", retval == 0)):
            if way in calls:
                calls[way].where(failure).emit(null=retval == 0)
        if calls.keys() & {"-1", "null"}:
            # A program that is linked statically may read errno without a call.
            asked = session.source(session.optional(uretprobe("c", ERRNO_LOCATION)))
            asked.where(deref(retval, 0, "i32") != 0).emit(errno=deref(retval, 0, "i32"))

    def consume(self, event: Any) -> None:
        """Remember a failure, or give the last failure of a thread the errno that it asks for."""
        last = self._unasked.pop(event.tid, None)
        if event.probe != ERRNO_LOCATION:
            self._unasked[event.tid] = (event.probe, "NULL" if event.null else "-1")
            if last is not None:
                self._counts[last[0]][last[1]] += 1
        elif last is not None:
            self._counts[last[0]][errno.errorcode.get(event.errno, str(event.errno))] += 1

    def flush(self) -> dict[str, Counter[str]]:
        """Return what was counted, and begin with nothing."""
        for function, error in self._unasked.values():
            self._counts[function][error] += 1
        for table, names in self._in_kernel:
            for (function, code), number in table.delta().items():
                self._counts[function][names.get(code, str(code))] += number
        counts, self._counts = self._counts, defaultdict(Counter)
        self._unasked.clear()
        return counts
