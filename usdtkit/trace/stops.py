"""Stops a command where it begins a program, and at instructions of certain files, so that we can look at its memory,
or write to it, before its code goes on.

Input: a child of ours, and file offsets of instructions. Output: calls of functions at each stop, after which the child
goes on. A BPF program (bpf/stops.c) counts the stop and sends SIGSTOP. Only a child of ours is ever stopped, and never
one that waits for SIGCONT or has a handler for it. Used by `presence` for `semaphores` and `loaders`.
"""

from __future__ import annotations

import _thread
import os
import signal
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from usdtkit.bpf.abi import abi_of
from usdtkit.bpf.compiler import translate_program
from usdtkit.bpf.sources import text_of
from usdtkit.errors import UnsupportedError
from usdtkit.files import OpenFile
from usdtkit.kernel.attach.links import Links
from usdtkit.kernel.attach.sites import FileSites, KernelSite, SitesByFile, UprobeSite
from usdtkit.kernel.load import Loaded
from usdtkit.kernel.taskmaps import SIGNALS, places_of
from usdtkit.model import Tracepoint

_CHILD = struct.Struct("<5Q")


class Stops:
    """The stops of one child."""

    def __init__(self, pid: int, method: str | None) -> None:
        """`method`: as `usdtkit.kernel.attach.links.Links` has it. UsdtkitError."""
        self._pid = pid
        self._loaded = Loaded(translate_program(f"{abi_of().stack_macros}\n{text_of('stops.c')}"))
        self._at_stop: list[Callable[[int], object]] = []
        self._links: Links | None = None
        self._over, self._detached = _thread.allocate_lock(), _thread.allocate_lock()
        self._attaching = _thread.allocate_lock()
        try:
            signals = [0, 0, 0]
            with suppress(UnsupportedError):
                signals = list(places_of(SIGNALS).values())
            self._loaded.maps["child"][bytes(4)] = _CHILD.pack(pid, 0, *signals)
            self._links = Links(self._loaded, method)
        except BaseException:
            self.close()
            raise

    def call(self, at_stop: Callable[[int], object]) -> None:
        """Call `at_stop` with the child's pid at each stop."""
        self._at_stop.append(at_stop)

    def stop_at_exec(self) -> None:
        """Stop the child before the first instruction of each program that it becomes. UsdtkitError."""
        self._attach({}, [KernelSite("stop_at_exec", Tracepoint("sched", "sched_process_exec"))])

    def stop_at(self, places: Mapping[OpenFile, Sequence[int]], state: int = 0) -> None:
        """Stop the child at instructions, by their file offsets. UsdtkitError.

        `state`: how far behind each of them lies a number in memory; while that is not 0, the child goes on.
        """
        sites = {
            file: FileSites({"stop_at_site": [UprobeSite(offset, 0, state) for offset in offsets]})
            for file, offsets in places.items()
        }
        self._attach(sites)

    def _attach(self, sites: SitesByFile, kernel_sites: Sequence[KernelSite] = ()) -> None:
        """Attach, unless `detach` was called, perhaps by another thread."""
        with self._attaching:
            if self._links is not None:
                self._links.attach(sites, (self._pid,), kernel_sites)

    def begin(self) -> None:
        """Begin with the calls, in a thread, which ends when the child ends."""
        self._over.acquire()
        _thread.start_new_thread(self._run, ())

    def detach(self) -> None:
        """Stop the child no more. Detaching takes long, and is done in a thread. The other thread ends with the
        child."""
        with self._attaching:
            links, self._links = self._links, None
        if links is not None:
            self._detached.acquire()
            _thread.start_new_thread(self._detach, (links,))

    def _detach(self, links: Links) -> None:
        try:
            links.close()
        finally:
            self._detached.release()

    def close(self) -> None:
        """Wait until all is detached and free the rest, once the child has ended."""
        self.detach()
        with self._detached, self._over:
            self._loaded.close()

    def _run(self) -> None:
        seen = 0
        try:
            while True:
                # Its end is only looked at, so that whoever started the child can still wait for it.
                state = os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                if state is None or state.si_code != os.CLD_STOPPED:
                    return
                os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WNOHANG)
                number = _CHILD.unpack(self._loaded.maps["child"][bytes(4)])[1]
                if number != seen:  # else somebody else has stopped the child, and will let it go on
                    seen = number
                    try:
                        for at_stop in self._at_stop:
                            with suppress(Exception):  # without this thread, the next stop would never end
                                at_stop(self._pid)
                    finally:
                        os.kill(self._pid, signal.SIGCONT)
        except ChildProcessError:  # it was waited for
            return
        finally:
            self._over.release()
