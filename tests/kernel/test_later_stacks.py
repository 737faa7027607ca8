"""Stacks of processes that the session was not given: those that run already, that start later, or load more later."""

import re
import struct

import pytest
from commandline import usdtkit
from processes import eventually

from usdtkit import trace
from usdtkit.errors import UsageError
from usdtkit.trace import ustack

LOADS = """
#include <dlfcn.h>
#include "program.h"
int main(int argc, char **argv)
{
    await_go();
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!library)
        return 1;
    void (*through)(long) = (void (*)(long))dlsym(library, "through");
    await_go();
    for (long n = 0; n < 997; n++)
        through(n);
    printf("did 997\\n");
    fflush(stdout);
    await_go();
    return 0;
}
"""
LIBRARY = """
#include <unistd.h>
volatile long sum;
__attribute__((noinline, noclone)) static void within(long n) { sum += getppid() + n; sum++; }
void through(long n) { within(n); sum++; }
"""


def known_mappings(session, pid):
    """How many executable mappings of a process the walker knows."""
    try:
        return struct.unpack_from("<I", session._running._loaded.maps["unwind_processes"][pid.to_bytes(4, "little")])[0]
    except KeyError:
        return 0


def await_known(session, pid, more_than=0):
    eventually(lambda: known_mappings(session, pid) > more_than, answer=True)


def check_whole(session, counts, *inner, processes):
    """Each process has had 997 hits, all with the same stack, whole."""
    found = {}
    for (pid, stack, *_), count in counts.read().items():
        names = tuple(frame.name for frame in stack)
        assert (stack.end, names[-1], names[: len(inner)]) == ("", "_start", inner)
        found[pid] = found.get(pid, 0) + count
    assert found == dict.fromkeys(processes, 997)
    assert (session.summary().no_stack, session.summary().cut_stacks) == (0, ())


@pytest.mark.parametrize("discover", [False, True])
def test_processes_that_run_already(discover, stepper):
    steppers = [stepper() for _ in range(3)]
    with trace.Session(discover=discover) as session:
        counts = session.uprobe(steppers[0].path, "work").count("pid", stack=ustack)
        session.start()
        for each in steppers:
            await_known(session, each.pid)
            each.fire(997)
        check_whole(session, counts, "work", "main", processes=[each.pid for each in steppers])


def test_a_process_that_starts_later(stepper):
    with trace.Session(discover=True) as session:
        counts = session.uprobe(stepper().path, "work").count("pid", stack=ustack)
        session.start()
        late = stepper()
        await_known(session, late.pid, more_than=2)  # its libraries too
        late.fire(997)
        check_whole(session, counts, "work", "main", processes=[late.pid])


def test_a_process_that_nobody_told_of_has_one_cut_stack(stepper):
    """Its first one, by which it becomes known."""
    with trace.Session() as session:
        session.uprobe(stepper().path, "work").emit(stack=ustack)
        session.start()
        late = stepper()
        late.fire(1)
        (first,) = session.drain()
        late.fire(997)
        ends = [event.stack.end for event in session.drain()]
        assert first.stack.end == "memory that is not known to have code"
        assert ends == 997 * [""]
        assert [cut.count for cut in session.summary().cut_stacks] == [1]


def test_a_library_that_is_loaded_later(compile_c, spawn, wait_for_line):
    process = spawn([compile_c(LOADS, "-O2"), compile_c(LIBRARY, "-O2", "-shared", "-fPIC")])

    def go(text):
        process.stdin.write("\n")
        process.stdin.flush()
        wait_for_line(process, text)

    wait_for_line(process, "ready")
    with trace.Session(pid=process.pid, discover=True) as session:
        counts = session.uprobe("c", "getppid").count("pid", stack=ustack)
        session.start()
        before = known_mappings(session, process.pid)
        go("ready")
        await_known(session, process.pid, more_than=before)
        go("did 997")
        check_whole(session, counts, "getppid", "within", "through", "main", processes=[process.pid])


def test_unrelated_processes_cost_nothing(stepper, spawn):
    """Nobody looks at a process that does not map the traced file."""
    target, other = stepper(), spawn(["sleep", "60"])
    with trace.Session(discover=True) as session:
        session.uprobe(target.path, "work").count(stack=ustack)
        session.start()
        await_known(session, target.pid)
        later = spawn(["sleep", "60"])
        late = stepper()
        await_known(session, late.pid)
        assert [known_mappings(session, each.pid) for each in (other, later)] == [0, 0]


ASKS = "process.stdin.on('data', () => { for (let n = 0; n < 997; n++) process.ppid; console.log('did 997'); });"


def test_no_room_for_tables(spawn, wait_for_line):
    """Node's table has more than a megabyte. It is said once, counted, and its functions are followed all the same."""
    node = spawn(["node", "-e", f"{ASKS} console.log('ready')"])
    wait_for_line(node, "ready")
    with trace.Session(pid=node.pid, unwind_memory=1) as session:
        counts = session.uprobe("c", "getppid").count(stack=ustack)
        session.start()
        node.stdin.write("\n")
        node.stdin.flush()
        wait_for_line(node, "did 997")
        assert sum(counts.read().values()) == 997
        assert session.summary().untabled >= 1  # some builds have Node in a library, and more libraries
        (said,) = session.remarks
        assert said.startswith("stacks are followed by frame pointers in /")
        assert re.search(r"node[^,]*, .*in files that come later: the tables of call frames take 1 MB", said)


def test_frame_pointers_alone(stepper):
    target = stepper()
    with trace.Session(pid=target.pid, unwind="frame-pointers") as session:
        counts = session.uprobe(target.path, "work").count("pid", stack=ustack)
        session.start()
        assert "unwind_rows" not in session._running._loaded.maps
        target.fire(997)
        assert {stack.end for _, stack in counts.read()} == {None}
        assert sum(counts.read().values()) == 997
        assert (session.summary().cut_stacks, session.summary().untabled) == ((), 0)


@pytest.mark.parametrize("options", [{"unwind": "dwarf"}, {"unwind_memory": 0}, {"unwind_memory": 4097}])
def test_impossible_ways(options):
    with pytest.raises(UsageError) as error:
        trace.Session(**options)
    assert error.value.hint in ("one of auto, frame-pointers", "1 to 4096")


def test_options_of_the_command_line(stepper):
    done = usdtkit("stackcount", "--unwind", "frame-pointers", "-d", "0.01", "-p", stepper().pid, "c:getppid")
    assert done.returncode == 0, done.stderr
    for options in (["--unwind", "dwarf"], ["--unwind-memory", "0"], ["--unwind-memory", "5000"]):
        assert usdtkit("stackcount", *options, "c:getppid").returncode == 2


def test_a_small_capacity_is_that_of_counts(stepper):
    """The walk needs its own tables, whatever a session counts."""
    targets = [stepper() for _ in range(3)]
    with trace.Session(pid=[each.pid for each in targets], capacity=2) as session:
        counts = session.uprobe(targets[0].path, "work").count(stack=ustack)
        session.start()
        for each in targets:
            each.fire(997)
        assert sum(counts.read().values()) == 2 * 997
        assert {stack.end for (stack,) in counts.read()} == {""}
        assert (session.summary().full, session.summary().no_stack) == (997, 997)
