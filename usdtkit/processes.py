"""Facts about running processes: their numbers, users, threads and children, read from /proc.

Input: numbers or names of processes. Output: numbers. `usdtkit.scan` finds the files that processes run.
"""

# ruff: noqa: PTH115, PTH123, PTH208 thousands of paths at a time, where pathlib's cost shows

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator


def running_pids() -> list[int]:
    """Return the processes that /proc shows, kernel threads among them."""
    with os.scandir("/proc") as entries:
        return sorted(int(entry.name) for entry in entries if entry.name.isdecimal())


def named(*names: str) -> list[int]:
    """Return the processes whose program's file has one of these names, except those that we may not look into."""
    return [pid for pid, name in _programs() if name in names]


def programs() -> set[str]:
    """Return the file names of the programs that run, except those that we may not look into."""
    return {name for _, name in _programs()}


def _programs() -> Iterator[tuple[int, str]]:
    for pid in running_pids():
        with contextlib.suppress(OSError):  # it has ended, is a kernel thread, or is not ours
            yield pid, program_of(pid).rpartition("/")[2]


def called(name: str) -> list[int]:
    """Return the processes that `names_of` gives this name, except this one. A path means the program's file."""
    own = os.getpid()
    return [pid for pid in running_pids() if pid != own and name in names_of(pid, paths="/" in name)]


def names_of(pid: int, *, paths: bool = False) -> set[str]:
    """Return what people call a process: its program's file, its comm, and the script that Python runs in it. With
    `paths`, also the path of the program. A process that has ended, and a thread of the kernel, are called nothing."""
    try:
        program = program_of(pid)
    except PermissionError:  # it is another user's, and its comm is all that may be seen
        return {name_of(pid)}
    except OSError:
        return set()
    names = {program.rpartition("/")[2], name_of(pid)}
    if paths:
        names.add(program)
    if any(name.startswith("python") for name in names):
        names.update(_program_of_python(pid)[:1])
    return names


def program_of(pid: int) -> str:
    """Return the path of a process's program, as it is called in its container. OSError for one that has ended, is
    another user's, or is a thread of the kernel."""
    return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")


def below(pid: int) -> list[int]:
    """Return the processes that a process has started, those that they have started, and so on."""
    pids = [pid]
    for parent in pids:
        with contextlib.suppress(OSError):  # the process has ended
            for thread in os.listdir(f"/proc/{parent}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{parent}/task/{thread}/children", "rb") as file:
                    pids += map(int, file.read().split())
    return pids[1:]


def numbers(pid: int) -> tuple[int, ...]:
    """Return the numbers of a process: the one that we see, then those in the PID namespaces below ours, such as a
    container's; () if there is no such process."""
    return _numbers(pid, b"NSpid:")


def process_of(tid: int) -> int:
    """Return the number of the process that a thread belongs to, 0 if there is no such thread."""
    return next(iter(_numbers(tid, b"Tgid:")), 0)


def parent_of(pid: int) -> int:
    """Return the process that started this one or took it over since, 0 if there is none."""
    return next(iter(_numbers(pid, b"PPid:")), 0)


def user_of(pid: int) -> int:
    """Return the user as whom a process acts (its effective uid), -1 if there is no such process."""
    return next(iter(_numbers(pid, b"Uid:")[1:]), -1)


def name_of(pid: int) -> str:
    """Return what /proc calls a process (its comm), "?" if it has ended."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return os.fsdecode(file.read().rstrip(b"\n"))
    except OSError:
        return "?"


def title_of(pid: int) -> str:
    """Return by what people know a process: of one that Python runs, the program and its first word; else its comm."""
    name = name_of(pid)
    return (" ".join(_program_of_python(pid))[:60] or name) if name.startswith("python") else name


def _program_of_python(pid: int) -> list[str]:
    """The name of the script or module that a Python runs, and the first word after it; [] if there is none."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")[1:]
    except OSError:
        return []
    if b"-c" in words:
        return []
    program = [word for word in words if word and not word.startswith(b"-")][:2]
    return [os.fsdecode(part) for part in (*map(os.path.basename, program[:1]), *program[1:])]


def runs(tid: int) -> bool:
    """Return whether a thread of this number exists and has not ended; a zombie has."""
    return _words(tid, b"State:")[:1] not in ([], [b"Z"], [b"X"])


def threads(pids: Iterable[int] = ()) -> int:
    """Return how many threads the processes have now; without processes, how many there are on the machine."""
    count = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            count += len(os.listdir(f"/proc/{pid}/task"))
    if count:
        return count
    with open("/proc/loadavg", "rb") as file:
        return int(file.read().split()[3].partition(b"/")[2])


def threads_of(pid: int) -> list[int]:
    """Return the numbers of the threads that a process has now; none where it has ended or is not ours to see."""
    try:
        return sorted(map(int, os.listdir(f"/proc/{pid}/task")))
    except OSError:
        return []


def online_cpus() -> list[int]:
    """Return the numbers of the processors that are online now. OSError."""
    with open("/sys/devices/system/cpu/online", "rb") as file:
        ranges = (part.partition(b"-") for part in file.read().split(b","))
        return [cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1)]


def mount_namespace(pid: int | str) -> str:
    """Return the mount namespace of a process, in which it sees the files that it opens. OSError."""
    return os.readlink(f"/proc/{pid}/ns/mnt")


def _numbers(pid: int, field: bytes) -> tuple[int, ...]:
    return tuple(map(int, _words(pid, field)))


def _words(pid: int, field: bytes) -> list[bytes]:
    """The words of one line of a process's status, [] if there is none."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            line = next((line for line in file if line.startswith(field)), b"")
    except OSError:
        return []
    return line.split()[1:]
