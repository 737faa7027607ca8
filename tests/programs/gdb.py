"""gdb as the oracle of stacks: the frames of a thread at the very hit at which a session took the stack.

Input: a process, and a function that it calls. Output: `Comparison`s. A session sends the stack of every call. A
program in the kernel, at the same site, sends SIGSTOP to the thread at every so many-th. gdb, which is attached all the
time, tells the addresses of all frames at each such stop (gdb_frames.py runs in it). Meanwhile all threads of the
process stand still, so the last event of the thread is that of the same call.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from processes import end, read_until

from usdtkit import trace
from usdtkit.bpf.bytecode import Bytecode, MapDescription
from usdtkit.bpf.uapi import (
    ADD_IMMEDIATE,
    CALL,
    EXIT,
    JUMP_IF_ZERO,
    LOAD_IMMEDIATE,
    MAP_ARRAY,
    MAP_LOOKUP,
    MOVE,
    MOVE_IMMEDIATE,
    PSEUDO_MAP_FD,
    STORE_IMMEDIATE,
    assemble,
)
from usdtkit.kernel.attach.links import Links
from usdtkit.kernel.attach.sites import FileSites, UprobeSite
from usdtkit.kernel.load import Loaded
from usdtkit.maps import executable_mappings, maps_of
from usdtkit.model import UserPlace
from usdtkit.targets import find_functions
from usdtkit.trace.specs import Resolved

STOPS = int(os.environ.get("USDTKIT_STOPS", "24"))
"""How many stops are compared in each test."""

MOST_FRAMES = 127  # of a stack
LONGEST_INSTRUCTION = 15  # in bytes, on x86-64
SEND_SIGNAL_THREAD, ATOMIC_FETCH_ADD, JUMP_IF_UNEQUAL_1 = 117, 1, 0x55
STOP_AT = assemble(
    (STORE_IMMEDIATE, 0x0A, -8, 0),  # *(u64 *)(r10 - 8) = 0, the key
    (MOVE, 0xA2, 0, 0),  # r2 = r10 - 8
    (ADD_IMMEDIATE, 0x02, 0, -8),
    (LOAD_IMMEDIATE, PSEUDO_MAP_FD << 4 | 1, 0, 0),  # r1 = the first map
    (0, 0, 0, 0),
    (CALL, 0x00, 0, MAP_LOOKUP),
    (JUMP_IF_ZERO, 0x00, 5, 0),  # if (!r0) return 0
    (MOVE_IMMEDIATE, 0x01, 0, -1),  # r1 = atomic_fetch_add((u64 *)r0, -1)
    (0xDB, 0x10, 0, ATOMIC_FETCH_ADD),
    (JUMP_IF_UNEQUAL_1, 0x01, 2, 1),  # if (r1 != 1) return 0
    (MOVE_IMMEDIATE, 0x01, 0, signal.SIGSTOP),
    (CALL, 0x00, 0, SEND_SIGNAL_THREAD),
    (MOVE_IMMEDIATE, 0x00, 0, 0),  # return 0
    (EXIT, 0x00, 0, 0),
)
BYTECODE = Bytecode((MapDescription("left", MAP_ARRAY, 4, 8, 1, 0),), {"stop": STOP_AT}, "")


class Comparison(NamedTuple):
    """A stack of a hit: as the session has it, and the addresses that gdb gives, innermost first."""

    stack: object
    gdb: list[int]
    reason: str
    """Why gdb's last frame has no caller, in its words."""

    @property
    def is_equal(self):
        """Whether all frames are the same that gdb can know. At its stop the first instruction has been executed.

        Code that was compiled at run time has no call frame information, and neither have V8's builtins. gdb only
        guesses who has called these.
        """
        ours, gdb = list(self.stack.addresses), self.gdb[:MOST_FRAMES]
        for n, frame in enumerate(self.stack.native):
            if not frame.module or frame.name.startswith("Builtins_"):
                ours, gdb = ours[: n + 1], gdb[: n + 1]
                break
        return 0 <= gdb[0] - ours[0] <= LONGEST_INSTRUCTION and gdb[1:] == ours[1:]

    def __repr__(self):
        lines = ["", f"gdb's last frame has no caller: {self.reason}"]
        for n, (frame, other) in enumerate(zip_longest(self.stack.native, self.gdb)):
            mine = frame and f"{frame.address:#x}"
            differs = "" if frame and frame.address == other else "*"
            lines.append(f"{n:3} {mine!s:>18} {other and hex(other)!s:>18} {differs} {frame and frame.label}")
        return "\n".join(lines)


class Stopper:
    """A program in the kernel that can stop a thread of a process at certain places of a file."""

    def __init__(self, pid, file, offsets):
        self._loaded, self._links, self._file = Loaded(BYTECODE), None, file
        try:
            self._links = Links(self._loaded)
            sites = FileSites({"stop": [UprobeSite(offset, 0, 0) for offset in offsets]})
            assert self._links.attach({file: sites}, (pid,)) == len(offsets)
        except BaseException:
            self.close()
            raise

    def stop_at(self, hit):
        """Stop the thread that is the so many-th to get there from now on."""
        self._loaded.maps["left"][bytes(4)] = hit.to_bytes(8, "little")

    def close(self):
        if self._links is not None:
            self._links.close()
        self._loaded.close()
        self._file.close()


class Gdb:
    """gdb, attached to a process that stands still until stacks are compared."""

    def __init__(self, process, pid):
        self._process, self._pid = process, pid

    def compare(self, library, name, every=1, stops=STOPS, offsets=(0,)):
        """The stacks of so many hits of a function, or of instructions of it, each the `every`-th since the last."""
        (function,) = find_functions(library, [name], pids=(self._pid,))
        places = [function.file_offset + offset for offset in offsets]
        with (
            contextlib.closing(Stopper(self._pid, function.file, places)) as stopper,
            trace.Session(pid=self._pid) as session,
        ):
            sites = tuple(UserPlace(name, function.path, offset, function=function) for offset in places)
            session.source(Resolved(name, "entry", (), sites)).emit("ustack", "tid")
            session.start()
            compared, until = [], time.monotonic() + 60
            while len(compared) < stops:
                assert time.monotonic() < until, "somebody's return probes hide the callers from gdb"
                compared += self._next(session, stopper, every)
        return compared

    def _next(self, session, stopper, every):
        """The next hit, if gdb can see its callers: at most one `Comparison`."""
        stopper.stop_at(every)
        self.say("continue")
        told = json.loads(read_until(self._process, '{"', timeout=60))
        assert told.keys() == {"tid", "frames", "reason"}, told
        last = [event for event in session.drain() if event.tid == told["tid"]][-1]
        code = [*executable_mappings(maps_of(self._pid))]
        mapped = [next((each.name for each in code if each.start <= at < each.end), None) for at in told["frames"]]
        if "[uprobes]" in mapped:  # where somebody traces the return from a caller, which is then not on the stack
            return []
        # Where libc does not say that a stack ends, gdb takes other values on it for addresses.
        frames = told["frames"][: mapped.index(None)] if None in mapped else told["frames"]
        return [Comparison(last.ustack, frames, told["reason"])]

    def say(self, word):
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def attached(pid):
    """gdb at a process, which runs freely afterwards."""
    command = ["gdb", "-nx", "-q", "-batch", "-ex", f"python pid = {pid}"]
    command += ["-x", Path(__file__).with_name("gdb_frames.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, **pipes, text=True, start_new_session=True)
    try:
        read_until(process, "attached", timeout=60)
        gdb = Gdb(process, pid)
        yield gdb
        gdb.say("detach")
        assert process.wait(60) == 0
    finally:
        process.stdin.close()  # which ends it, if it waits for a word
        end(process)
