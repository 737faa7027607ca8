"""Which calls of a library failed, and with which error, by what its functions return.

Input: names of functions, and pairs of a session from call to return. Output: errors by function. How a function says
that it failed stands in `usdtkit.signatures.libc`. The kernel does not say where a thread's errno is, but the thread
does: C's `errno` is a call of a function that returns the address. So a failure waits, by thread, for that call.
"""

from __future__ import annotations

import argparse
import errno
import fnmatch
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from usdtkit.cli.run import filtered
from usdtkit.signatures.libc import ERRNO_LOCATION, FAILURES, GAI_ERRORS
from usdtkit.trace import Pair, Session, deref, retval, uretprobe


def by_failure(functions: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """Names of functions by the way in which they say that they failed, as FAILURES has it, else "-1"."""
    groups: dict[str, list[str]] = defaultdict(list)
    for function in functions:
        groups[next((way for glob, way in FAILURES if fnmatch.fnmatchcase(function, glob)), "-1")].append(function)
    return groups


class Failures:
    """Failed calls by function and error, since the last look; `calls` are pairs by the way in which they fail."""

    def __init__(self, session: Session, options: argparse.Namespace, calls: Mapping[str, Pair]) -> None:
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._unasked: dict[int, tuple[str, str]] = {}  # the last failure of a thread that has not asked for errno
        self._in_kernel = []
        for way, names in (("code", errno.errorcode), ("gai", GAI_ERRORS)):
            if way in calls:
                failed = calls[way].where(retval.cast("i32") != 0)
                self._in_kernel.append((failed.count("probe", code=retval.cast("i32")), names))
        for way, failure in (("-1", retval.cast("i32") == -1), ("null", retval == 0)):
            if way in calls:
                calls[way].where(failure).emit(null=retval == 0)
        if calls.keys() & {"-1", "null"}:
            # A program that is linked statically may read errno without a call.
            asked = session.source(session.optional(uretprobe("c", ERRNO_LOCATION)))
            filtered(asked.where(deref(retval, 0, "i32") != 0), options).emit(errno=deref(retval, 0, "i32"))

    def take(self, event: Any) -> None:
        """A failure, or a thread that asks for errno."""
        last = self._unasked.pop(event.tid, None)
        if event.probe != ERRNO_LOCATION:
            self._unasked[event.tid] = (event.probe, "NULL" if event.null else "-1")
            if last is not None:
                self._counts[last[0]][last[1]] += 1
        elif last is not None:
            self._counts[last[0]][errno.errorcode.get(event.errno, str(event.errno))] += 1

    def flush(self) -> dict[str, Counter[str]]:
        """What was counted; then begin anew."""
        for function, error in self._unasked.values():
            self._counts[function][error] += 1
        for table, names in self._in_kernel:
            for (function, code), number in table.delta().items():
                self._counts[function][names.get(code, str(code))] += number
        counts, self._counts = self._counts, defaultdict(Counter)
        self._unasked.clear()
        return counts
