"""A program that handles signals all the time can trace, and what a signal breaks off is no verdict on a program."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from usdtkit import trace
from usdtkit._ffi import lib
from usdtkit.errors import ProgramError, UsdtkitError
from usdtkit.kernel import load as loading
from usdtkit.trace import arg, cstr, uprobe

STARTS = 20


def new_session() -> trace.Session:
    """A session with two pairs: several programs, with much for the verifier to look at."""
    session = trace.Session(pid=os.getpid())
    pair = session.pair(uprobe("c", "getaddrinfo"), keep={"host": cstr(arg(1), 256)})
    pair.where(pair.latency > 0).emit("host", "latency")
    session.pair(uprobe("c", "getppid"), uprobe("c", "getpid"), key=trace.tid).count()
    return session


@contextmanager
def alarms(seconds: float) -> Iterator[list[int]]:
    """SIGALRM every so many seconds, handled in Python; the list gets longer by each."""
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield seen
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("seconds", [0.01, 0.001])
def test_sessions_start_while_signals_come(seconds):
    with new_session() as session:
        session.start()  # compiled before the clock runs
    with alarms(seconds) as seen:
        for _ in range(STARTS):
            with new_session() as session:
                session.start()
    assert seen
    # None waits behind a mask that was not taken away.
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@pytest.mark.parametrize("method", ["perf_link", "perf_ioctl"])
def test_other_ways_to_attach_while_signals_come(method):
    with alarms(0.001):
        for _ in range(STARTS):
            with trace.Session(pid=os.getpid(), method=method) as session:
                session.uprobe("c", "getppid").count()
                session.start()


class Broken:
    """The shim, whose loading of programs fails with one errno after so many that work."""

    def __init__(self, code: int, after: int = 0) -> None:
        self.code, self.after = code, after

    def __getattr__(self, name: str) -> object:
        return getattr(lib, name)

    def usdtkit_prog_load(self, *arguments: object) -> int:
        self.after -= 1
        return -self.code if self.after < 0 else lib.usdtkit_prog_load(*arguments)


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EINTR, errno.ENOMEM, errno.EMFILE])
@pytest.mark.parametrize("after", [0, 1])
def test_what_passes_is_no_verdict(monkeypatch, code, after):
    with new_session() as session:
        monkeypatch.setattr(loading, "lib", Broken(code, after))
        with pytest.raises(UsdtkitError) as caught:
            session.start()
    assert not isinstance(caught.value, ProgramError)
    assert "loading the program" in str(caught.value) and os.strerror(code) in str(caught.value)
    assert "verifier" not in str(caught.value) and "keeps" not in str(caught.value)


def test_nobody_is_blamed_where_nothing_can_be_tried(monkeypatch):
    """The verifier rejects the program, and then the parts cannot be loaded for want of descriptors."""
    verdicts = Broken(errno.EINVAL)
    with trace.Session(pid=os.getpid()) as session:
        calls = session.uprobe("c", "getaddrinfo")
        calls.where(trace.pid > 0).emit(host=cstr(arg(1), 256))
        monkeypatch.setattr(loading, "lib", verdicts)
        refused = loading._load

        def load(*arguments: object) -> int:
            try:
                return refused(*arguments)  # type: ignore[arg-type]
            finally:
                verdicts.code = errno.EMFILE

        monkeypatch.setattr(loading, "_load", load)
        with pytest.raises(ProgramError, match=r"^the kernel's verifier rejects the program: Invalid argument$"):
            session.start()
