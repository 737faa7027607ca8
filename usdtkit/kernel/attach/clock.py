"""A clock of the kernel, by perf events: one for each thread of the processes, or for each processor.

Input: a program, the clock, and the processes. Output: a descriptor for each event, with which the program goes away.

The events leave out the kernel. A program therefore sees the registers that the interrupted code has, as a uprobe's
program does, and it never interrupts another program of ours, which would run in the kernel.

The cookie is a constant of the program, and the program is set by ioctl. A link would take a second descriptor for each
thread, and threads that a thread starts inherit its program but not the link's cookie.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from usdtkit._ffi import check, lib
from usdtkit.bpf.uapi import PROG_TYPE_PERF_EVENT
from usdtkit.errors import NotFoundError, UnsupportedError, UsageError, UsdtkitError
from usdtkit.kernel.attach.sites import Attached
from usdtkit.kernel.load import Loaded
from usdtkit.model import Clock
from usdtkit.processes import online_cpus, threads_of

CPU_CLOCK, TASK_CLOCK = 0, 1  # PERF_COUNT_SW_…
MAX_RATE = "/proc/sys/kernel/perf_event_max_sample_rate"


class ClockEvents:
    """One program at one clock.

    A thread is missed, with those that it starts, if a thread that is not attached yet starts it within the
    milliseconds in which the threads of a process are attached to one after another. A processor that comes online
    later is missed too, unless processes are given.
    """

    def __init__(self, loaded: Loaded, program: str, clock: Clock, cookie: int, pids: Sequence[int]) -> None:
        """`pids`: the processes; (0,) stands for all."""
        self._loaded = loaded
        self._program = program
        self._clock = clock
        self._cookie = cookie
        self._pids = [pid for pid in pids if pid]

    def load(self) -> None:
        """Load the program; `attach` does it too, and finds it loaded then."""
        self._load()

    def _load(self) -> int:
        return self._loaded.program(self._program, cookie=self._cookie, type=PROG_TYPE_PERF_EVENT)

    def attach(self, attached: Attached) -> None:
        """Attach, and add the descriptors to what is `attached`.

        NotFoundError where all of the processes have ended; UsageError of a frequency that the kernel does not allow.
        """
        if self._pids:
            events = [
                self._attach_event(TASK_CLOCK, thread, -1, attached) for pid in self._pids for thread in threads_of(pid)
            ]
        else:
            events = [self._attach_event(CPU_CLOCK, -1, cpu, attached) for cpu in online_cpus()]
        if not any(events):
            pids = ", ".join(map(str, self._pids))
            raise NotFoundError(f"{self._clock.name}: process {pids} ended before it could be sampled")

    def _attach_event(self, kind: int, thread: int, cpu: int, attached: Attached) -> bool:
        """Whether the thread or the processor was still there."""
        event = lib.usdtkit_perf_sample(kind, self._clock.frequency_hz, thread, cpu)
        if event in (-errno.ESRCH, -errno.ENODEV):
            return False
        if event < 0:
            self._fail(event)
        attached.descriptors.append(event)
        what = f"attaching to {self._clock.name}"
        check(lib.usdtkit_perf_set_program(self._load(), event), what)
        check(lib.usdtkit_perf_enable(event), what)
        return True

    def _fail(self, result: int) -> None:
        if result == -errno.EINVAL:
            with open(MAX_RATE, "rb") as file:  # noqa: PTH123 importing pathlib takes long
                most = int(file.read())
            if self._clock.frequency_hz > most:
                raise UsageError(
                    f"{self._clock.name}: the kernel takes at most {most} samples in a second",
                    hint="a lower frequency, or raise the limit: sysctl kernel.perf_event_max_sample_rate=…",
                )
            if self._pids:
                raise UnsupportedError(
                    f"{self._clock.name}: this kernel does not sample the threads of a process",
                    hint="take Linux 5.13; without pid, all processes are sampled",
                )
        if result == -errno.EMFILE:
            raise UsdtkitError(
                f"{self._clock.name}: each thread of the processes takes an open file, and there are too many",
                hint="raise the limit (ulimit -n); without pid, a clock takes one for each processor",
            )
        check(result, f"attaching to {self._clock.name}")
