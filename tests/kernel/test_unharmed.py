"""A traced program does what it does untraced: however functions are left, and whenever a tracer comes and goes.

Programs in which functions are left in every way that there is (tests/programs/unharmed), traced at entries, returns,
both, and at instructions within functions; attached before, in the middle of a call, and until then; in each of the
ways to attach. All that they write and how they end is what it is without a tracer, and what they count of their own
calls is what the tracer counts.
"""

import contextlib
import functools
import glob
import os
import shutil
from pathlib import Path

import pytest
from unharmed import MOMENTS, SOURCES, Program, instructions

from usdtkit import targets, trace
from usdtkit.bpf.links import METHODS
from usdtkit.records import replace

CASES = {
    "calls.c": (
        *("deep", "tail", "big_frame", "results", "sort", "signals", "alternate_stack", "timer", "vfork", "clone_vm"),
        *("fork", "spawn", "exec", "exit", "signal_death", "seccomp_strict", "seccomp_filter", "threads"),
    ),
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
COMPILED = [name for name in CASES if name.endswith((".c", ".cc", ".rs"))]
KINDS = ("entry", "return", "pair", "instruction")


@pytest.fixture(scope="session")
def program(compile_c, compile_file):
    """program(file of tests/programs/unharmed) -> a Program, compiled and run untraced once a session."""
    interpreters = {
        ".rb": ("ruby", glob.glob("/usr/lib/*/libruby-3.1.so.3.1")),
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
            flags = ["-O2", "-rdynamic", f"-I{SOURCES}", *(["-fnon-call-exceptions"] if kind == ".cc" else [])]
            path = compile_c(f"unharmed/{name}", *flags, compiler="g++" if kind == ".cc" else "gcc")
        return Program(name, CASES[name], (str(path),), str(path), 8 if kind == ".go" else 16)

    return make


class Tracer:
    """Hooks of one kind in a session that runs, with counts by process and function."""

    def __init__(self, program, kind, pids, functions=None, **options):
        self.session = trace.Session(pid=pids, **options)
        self.counts = []
        self.starts = []
        for library, names in (functions or program.functions).items():
            if kind == "instruction":
                source = self.session.source(within(self.session, program, library, names))
            elif kind == "entry":
                source = self.session.uprobe(library, *names)
            elif kind == "return":
                source = self.session.uretprobe(library, *names)
            else:
                source = self.session.pair(trace.uprobe(library, *names))
                self.starts.append(source.start.count("pid", "probe"))
            self.counts.append(source.count("pid", "probe"))

    @classmethod
    @contextlib.contextmanager
    def attached(cls, program, kind, pids, **options):
        """As a context, attached."""
        tracer = cls(program, kind, pids, **options)
        with tracer.session:
            tracer.session.start()
            yield tracer

    def look(self, pids):
        """(calls that were counted, entries of pairs, the summary) so far, by (case, function)."""
        case_of = {pid: case for case, pid in pids.items()}
        found = [
            {(case_of[pid], name): count for counts in each for (pid, name), count in counts.read().items()}
            for each in (self.counts, self.starts)
        ]
        return *found, self.session.summary()


def within(session, program, library, names):
    """Instructions within functions, as places of a session."""
    found = session.resolve(trace.uprobe(library, *names))
    sizes = {function.file_offset: function for function in targets.find_functions(library, names, pids=session.pids)}
    places = [
        replace(place, file_offset=place.file_offset + offset)
        for place in found.places
        for offset in offsets(place.path, sizes[place.file_offset], program.instructions)
    ]
    return replace(found, places=tuple(places), arguments=())


offsets = functools.cache(instructions)


def told(outcomes, which):
    """{(case, function): what the processes themselves counted}: 0 of entries, 1 of returns."""
    return {
        (case, name.rpartition(":")[2]): count[which]
        for case, outcome in outcomes.items()
        for name, count in outcome.calls.items()
        if count[which]
    }


def check(program, kind, moment, **options):
    """Trace the program so; nothing differs, and the counts are its own."""
    outcomes, (counted, starts, summary) = program.traced(
        moment,
        lambda pids: Tracer.attached(program, kind, pids, **options),
        Tracer.look,
    )
    wrong = program.differences(outcomes)
    if kind != "instruction":
        wrong += wrong_counts(program, kind, moment, counted, starts)
    if kind == "pair" and moment == "before":
        lost = summary.dropped + summary.overflow + summary.full
        if sum(starts.values()) != sum(counted.values()) + lost:
            wrong.append(f"of {sum(starts.values())} entries {sum(counted.values())} returned, and {summary}")
    assert not wrong, "\n".join([f"{kind}, {moment}, {options}:", *wrong])


def wrong_counts(program, kind, moment, counted, starts):
    """A line for each function whose calls were not counted rightly; those of an open end are at most what they are."""
    wrong = []
    expected = [(counted, told(program.untraced, 0 if kind == "entry" else 1))]
    if kind == "pair":
        expected.append((starts, told(program.untraced, 0)))
    for found, right in expected:
        for (case, name), count in right.items():
            seen = found.get((case, name), 0)
            if seen > count or (moment == "before" and seen != count):
                wrong.append(f"{program.name}/{case}: {seen} of {count} calls of {name} were counted")
    return wrong


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_it_does_what_it_does_untraced(program, name, kind, moment):
    check(program(name), kind, moment)
