"""Stops a command where the code of certain files begins, so that we can write to the memory that it has just mapped.

Input: file offsets of first instructions, and a child of ours. Output: a call for each stop, after which the child goes
on. A BPF program at these instructions counts the stop and sends SIGSTOP. Only a child of ours is ever stopped. Used by
`semaphores`.
"""

from __future__ import annotations

import _thread
import os
import signal
from collections.abc import Callable, Mapping, Sequence

from usdtkit.bpf.bytecode import Bytecode, MapDescription
from usdtkit.bpf.uapi import (
    ADD_IMMEDIATE,
    ATOMIC_ADD,
    CALL,
    EXIT,
    JUMP_IF_ZERO,
    LOAD_IMMEDIATE,
    MAP_ARRAY,
    MAP_LOOKUP,
    MOVE,
    MOVE_IMMEDIATE,
    PSEUDO_MAP_FD,
    SEND_SIGNAL,
    STORE_IMMEDIATE,
    assemble,
)
from usdtkit.files import OpenFile
from usdtkit.kernel.attach.links import Links
from usdtkit.kernel.attach.sites import FileSites, UprobeSite
from usdtkit.kernel.load import Loaded

_PROGRAM = assemble(
    (STORE_IMMEDIATE, 0x0A, -8, 0),  # *(u64 *)(r10 - 8) = 0, the key
    (MOVE, 0xA2, 0, 0),  # r2 = r10 - 8
    (ADD_IMMEDIATE, 0x02, 0, -8),
    (LOAD_IMMEDIATE, PSEUDO_MAP_FD << 4 | 1, 0, 0),  # r1 = the first map
    (0, 0, 0, 0),
    (CALL, 0x00, 0, MAP_LOOKUP),
    (JUMP_IF_ZERO, 0x00, 4, 0),  # if (!r0) return 0
    (MOVE_IMMEDIATE, 0x01, 0, 1),  # lock *(u64 *)r0 += 1
    (ATOMIC_ADD, 0x10, 0, 0),
    (MOVE_IMMEDIATE, 0x01, 0, signal.SIGSTOP),
    (CALL, 0x00, 0, SEND_SIGNAL),
    (MOVE_IMMEDIATE, 0x00, 0, 0),  # return 0
    (EXIT, 0x00, 0, 0),
)
_BYTECODE = Bytecode((MapDescription("stops", MAP_ARRAY, 4, 8, 1, 0),), {"stop": _PROGRAM}, "")


class Stops:
    """The stops of one child."""

    def __init__(self, pid: int, places: Mapping[OpenFile, Sequence[int]], method: str | None) -> None:
        """`places`: file offsets of instructions, by file. `method`: as `usdtkit.kernel.attach.links.Links` has it."""
        self._pid = pid
        self._loaded = Loaded(_BYTECODE)
        self._links: Links | None = None
        self._over = _thread.allocate_lock()
        try:
            self._links = Links(self._loaded, method)
            sites = {
                file: FileSites({"stop": [UprobeSite(offset, 0, 0) for offset in offsets]})
                for file, offsets in places.items()
            }
            self._links.attach(sites, (pid,))
        except BaseException:
            self.detach()
            self.close()
            raise

    def begin(self, at_stop: Callable[[int], None]) -> None:
        """Call `at_stop` with the child's pid at each stop from now on, in a thread, until the child ends."""
        self._over.acquire()
        _thread.start_new_thread(self._run, (at_stop,))

    def detach(self) -> None:
        """Stop the child no more. The thread ends with the child."""
        if self._links is not None:
            self._links.close()
            self._links = None

    def close(self) -> None:
        """Free the rest, once the child has ended."""
        with self._over:
            self._loaded.close()

    def _run(self, at_stop: Callable[[int], None]) -> None:
        seen = 0
        try:
            while True:
                # Its end is only looked at, so that whoever started the child can still wait for it.
                state = os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                if state is None or state.si_code != os.CLD_STOPPED:
                    return
                os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WNOHANG)
                number = int.from_bytes(self._loaded.maps["stops"][bytes(4)], "little")
                if number != seen:  # else somebody else has stopped the child, and will let it go on
                    seen = number
                    try:
                        at_stop(self._pid)
                    finally:
                        os.kill(self._pid, signal.SIGCONT)
        except ChildProcessError:  # it was waited for
            return
        finally:
            self._over.release()
