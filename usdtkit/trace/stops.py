"""A command stops where the code of certain files begins, so that we can write to what it has just mapped.

Input: file offsets of first instructions, and a child of ours. Output: a call for each stop, after which the child goes
on. A BPF program at these instructions counts the stop and sends SIGSTOP. Only a child of ours is ever stopped.
"""

from __future__ import annotations

import _thread
import os
import signal
import struct
from collections.abc import Callable, Mapping, Sequence

from usdtkit.bpf.compiler import Bytecode, MapDescription
from usdtkit.files import OpenFile
from usdtkit.kernel.links import FileSites, Links, Site
from usdtkit.kernel.loader import Loaded
from usdtkit.kernel.maps import ARRAY

_CODE = struct.Struct("<BBhi")
_LOOKUP, _SEND_SIGNAL = 1, 109
_PROGRAM = b"".join(
    _CODE.pack(*instruction)
    for instruction in (
        (0x7A, 0x0A, -8, 0),  # *(u64 *)(fp - 8) = 0, the key
        (0xBF, 0xA2, 0, 0),  # r2 = fp
        (0x07, 0x02, 0, -8),  # r2 += -8
        (0x18, 0x11, 0, 0),  # r1 = the first map
        (0x00, 0x00, 0, 0),
        (0x85, 0x00, 0, _LOOKUP),
        (0x15, 0x00, 4, 0),  # none: to the end
        (0xB7, 0x01, 0, 1),  # r1 = 1
        (0xDB, 0x10, 0, 0),  # *(u64 *)r0 += r1, atomically
        (0xB7, 0x01, 0, signal.SIGSTOP),  # r1 = SIGSTOP
        (0x85, 0x00, 0, _SEND_SIGNAL),
        (0xB7, 0x00, 0, 0),  # return 0
        (0x95, 0x00, 0, 0),
    )
)
_BYTECODE = Bytecode((MapDescription("stops", ARRAY, 4, 8, 1, 0),), {"stop": _PROGRAM}, "")


class Stops:
    """The stops of one child."""

    def __init__(self, pid: int, places: Mapping[OpenFile, Sequence[int]], method: str | None) -> None:
        """`places`: file offsets of instructions, by file. `method` as `bpf.links.Links` has it."""
        self._pid = pid
        self._loaded = Loaded(_BYTECODE)
        self._links: Links | None = None
        self._over = _thread.allocate_lock()
        try:
            self._links = Links(self._loaded, method)
            sites = {file: FileSites({"stop": [Site(at, 0, 0) for at in offsets]}) for file, offsets in places.items()}
            self._links.attach(sites, (pid,))
        except BaseException:
            self.detach()
            self.close()
            raise

    def begin(self, at_stop: Callable[[int], None]) -> None:
        """From now on, until the child ends, call `at_stop` with its number at each stop, in a thread."""
        self._over.acquire()
        _thread.start_new_thread(self._run, (at_stop,))

    def detach(self) -> None:
        """Let it stop no more. The thread ends with the child."""
        if self._links is not None:
            self._links.close()
            self._links = None

    def close(self) -> None:
        """Free the rest, when the child has ended."""
        with self._over:
            self._loaded.close()

    def _run(self, at_stop: Callable[[int], None]) -> None:
        seen = 0
        try:
            while True:
                # What has ended is left for whoever started it.
                state = os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                if state is None or state.si_code != os.CLD_STOPPED:
                    return
                os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WNOHANG)
                number = int.from_bytes(self._loaded.maps["stops"][bytes(4)], "little")
                if number != seen:  # else somebody else has stopped it, and lets it go on
                    seen = number
                    try:
                        at_stop(self._pid)
                    finally:
                        os.kill(self._pid, signal.SIGCONT)
        except ChildProcessError:  # it has been collected
            return
        finally:
            self._over.release()
