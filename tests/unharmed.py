"""Programs of tests/programs/unharmed, untraced and traced: what they write and how they end must not differ.

A program is run once untraced: that is what it does, and tells which of its functions to trace. Then all its cases run
at once, each in a process of its own, and a tracer is attached to these before they begin, or in the middle of a call,
or until the middle of a call.

Input: the fixture `unharmed` gives a Program. Output: an Outcome for each of its cases, and in words what differs.
"""

import contextlib
import functools
import os
import re
import select
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest
from processes import end, kill_group

from usdtkit.elf.image import Image
from usdtkit.elf.sites import cost

SOURCES = Path(__file__).parent / "programs" / "unharmed"
MOMENTS = ("before", "middle", "until_middle")
PATIENCE_S = 30
CASES = {
    "calls.c": (
        *("deep", "tail", "big_frame", "results", "sort", "signals", "alternate_stack", "timer", "vfork", "clone_vm"),
        *("fork", "spawn", "exit", "signal_death", "seccomp_strict", "seccomp_filter", "threads"),
    ),
    "execs.c": ("exec",),
    "jumps.c": ("longjmp", "deep_longjmp", "siglongjmp", "alternate_stack", "timer", "sort", "family"),
    "contexts.c": ("swap", "generator", "threads", "resume"),
    "by_hand.c": ("switch",),
    "threads.c": (
        *("cancel", "cancel_at_once", "cancel_storm", "cancel_wait", "thread_exit", "first_exits", "backtrace"),
    ),
    "throws.cc": (
        *("caught_above", "through", "rethrow", "deep", "sort", "through_c", "constructors", "uncaught", "noexcept"),
        *("exception_ptr", "signal", "threads"),
    ),
    "panics.rs": ("caught", "resumed", "deep", "dropping", "threads", "uncaught"),
    "goroutines.go": ("grow", "many", "recovering"),
    "fibers.rb": ("fibers", "generators", "exceptions", "threads"),
    "fibers.php": ("fibers", "exceptions", "sorting"),
    "stacks.py": ("greenlets", "gevents", "exceptions", "daemons"),
}

# Of the compiled ones, and of greenlets, what is also traced in ways that take long for each process.
FEW = {
    "calls.c": ("tail", "fork", "seccomp_strict"),
    "execs.c": ("exec",),
    "jumps.c": ("longjmp", "siglongjmp"),
    "contexts.c": ("generator",),
    "by_hand.c": ("switch",),
    "threads.c": ("cancel", "cancel_storm"),
    "throws.cc": ("rethrow", "threads"),
    "panics.rs": ("caught",),
    "goroutines.go": ("grow",),
    "stacks.py": ("greenlets",),
}
# Cleanup handlers are then run by the unwinder, and signals can become exceptions.
FLAGS = {"threads.c": ["-fexceptions"], "throws.cc": ["-fnon-call-exceptions"]}


@dataclass(frozen=True)
class Outcome:
    """How a process ended, and all that it wrote. `status` is as subprocess has it, None of one that hung."""

    status: int | None
    output: str
    errors: str

    @functools.cached_property
    def calls(self):
        """{function: (entered, returned)} as the process counted itself."""
        told = re.findall(r"^calls (\S+) (\d+) (\d+)$", self.output, re.M)
        return {name: (int(entered), int(returned)) for name, entered, returned in told}

    @functools.cached_property
    def functions(self):
        """The functions to trace, as names and globs."""
        return {*self.calls, *re.findall(r"^traces (\S+)$", self.output, re.M)}

    def differs_from(self, expected):
        """The differences, in words; "" where nothing is."""
        found = []
        if self.status != expected.status:
            found.append(f"{_ending(self.status)} instead of {_ending(expected.status)}")
        for what, own, right in (("wrote", self.output, expected.output), ("complained", self.errors, expected.errors)):
            if own != right:
                lines, others = own.splitlines(), right.splitlines()
                same = next((n for n, (a, b) in enumerate(zip_longest(lines, others)) if a != b), 0)
                found.append(f"{what} {lines[same : same + 3]} instead of {others[same : same + 3]}")
        return ", ".join(found)


def _ending(status):
    if status is None:
        return "hung"
    return f"ended by signal {-status}" if status < 0 else f"exited with {status}"


class Running:
    """One case of a program, in a process that waits for a line."""

    def __init__(self, command):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = subprocess.Popen(command, bufsize=0, start_new_session=True, **pipes)
        self.pid = self.process.pid
        self._output = b""

    def until(self, line, deadline):
        """Read what it writes up to this line; or to the end, of a process that does not come so far."""
        while f"{line}\n".encode() not in self._output:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                return
            if not (read := os.read(self.process.stdout.fileno(), 1 << 16)):
                return
            self._output += read

    def go(self):
        """Give it the line that it waits for."""
        with contextlib.suppress(BrokenPipeError):  # it has died: the outcome tells
            self.process.stdin.write(b"\n")

    def outcome(self, deadline):
        """The Outcome, when it has ended."""
        try:
            output, errors = self.process.communicate(timeout=max(0.1, deadline - time.monotonic()))
            status = self.process.returncode
        except subprocess.TimeoutExpired:
            kill_group(self.process)
            output, errors = self.process.communicate()
            status = None
        return Outcome(status, (self._output + output).decode(), errors.decode())


@dataclass(frozen=True)
class Program:
    """`command` and a case's name run that case. `image` is the file whose functions are traced; of each at most
    `instructions` are."""

    name: str
    cases: tuple[str, ...]
    command: tuple[str, ...]
    image: str
    instructions: int

    @functools.cached_property
    def untraced(self):
        """{case: Outcome} without a tracer."""
        with self.running() as runs:
            return self._finish(runs)

    @functools.cached_property
    def functions(self):
        """{library: names and globs} of all that any case wants to be traced."""
        wanted = defaultdict(set)
        for outcome in self.untraced.values():
            for name in outcome.functions:
                library, _, function = name.rpartition(":")
                wanted[library or self.image].add(function)
        return {library: sorted(names) for library, names in wanted.items()}

    @contextlib.contextmanager
    def running(self):
        """{case: Running} of all cases, each ready."""
        with contextlib.ExitStack() as ending:
            runs = {}
            for case in self.cases:
                runs[case] = Running([*self.command, case])
                ending.callback(end, runs[case].process, patience=0)
            deadline = time.monotonic() + PATIENCE_S
            for run in runs.values():
                run.until("ready", deadline)
            yield runs

    def traced(self, moment: str, attach: Callable, look=lambda tracer, pids: None):
        """({case: Outcome}, what `look` saw) of a run that is traced.

        `attach(pids)` is a context in which those processes are traced. `look(tracer, {case: pid})` is called at its
        end, when all processes have ended, or in the middle of their calls.
        """
        with self.running() as runs, contextlib.ExitStack() as tracing:
            pids = {case: run.pid for case, run in runs.items()}
            if moment == "middle":
                self._advance(runs)
            tracer = tracing.enter_context(attach(list(pids.values())))
            if moment != "middle":
                self._advance(runs)
            if moment == "until_middle":
                seen = look(tracer, pids)
                tracing.close()
                return self._finish(runs, advanced=True), seen
            outcomes = self._finish(runs, advanced=True)
            return outcomes, look(tracer, pids)

    def _advance(self, runs):
        """To the middle of a call."""
        for run in runs.values():
            run.go()
        deadline = time.monotonic() + PATIENCE_S
        for run in runs.values():
            run.until("inside", deadline)

    def _finish(self, runs, advanced=False):
        if not advanced:
            self._advance(runs)
        for run in runs.values():
            run.go()
        deadline = time.monotonic() + PATIENCE_S
        return {case: run.outcome(deadline) for case, run in runs.items()}

    def differences(self, outcomes):
        """A line for each case that behaved differently than untraced."""
        found = ((case, outcome.differs_from(self.untraced[case])) for case, outcome in outcomes.items())
        return [f"{self.name}/{case}: {difference}" for case, difference in found if difference]


@functools.cache
def instructions(path, address, size, most):
    """Offsets in a function of its instructions from the second on, without those that no probe may be on: `most`."""
    bounds = [f"--start-address={address:#x}", f"--stop-address={address + size:#x}"]
    command = ["objdump", "--disassemble", "--no-show-raw-insn", *bounds, path]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [int(at, 16) for at in re.findall(r"^ *([0-9a-f]+):\t", listing, re.M)][1:]
    with Image.open(path) as image:
        found = [at - address for at in found if cost(image, image.file_offset(at)) in ("emulated", "stepped")]
    return found[:: -(-len(found) // most)] if found else []


@pytest.fixture(scope="session")
def unharmed(compile_c, compile_file):
    """unharmed(file of tests/programs/unharmed) -> a Program, compiled and run untraced once a session."""
    interpreters = {
        ".rb": ("ruby", [*Path("/usr/lib").glob("*/libruby-3.1.so.3.1")]),
        ".php": ("php", [shutil.which("php")]),
        ".py": ("/usr/bin/python3", ["/usr/bin/python3"]),
    }

    @functools.cache
    def make(name):
        kind = Path(name).suffix
        if kind in interpreters:
            interpreter, [image] = interpreters[kind]
            return Program(name, CASES[name], (interpreter, str(SOURCES / name)), os.path.realpath(image), 5)
        if kind == ".rs":
            path = compile_file(["rustc", "-O", "-g"], SOURCES / name)
        elif kind == ".go":
            path = compile_file(["go", "build"], SOURCES / name)
        else:
            flags = ["-O2", "-rdynamic", f"-I{SOURCES}", *FLAGS.get(name, [])]
            path = compile_c(f"unharmed/{name}", *flags, compiler="g++" if kind == ".cc" else "gcc")
        return Program(name, CASES[name], (str(path),), str(path), 8 if kind == ".go" else 16)

    return make
