"""The three ways to attach are one for the user: the same events, names, semaphores, filters and returns."""

import os
import shutil
from collections import Counter

import leaks
import pytest

from usdtkit import targets, trace
from usdtkit.errors import UnsupportedError, UsageError
from usdtkit.kernel.attach.links import METHODS

pytestmark = pytest.mark.parametrize("method", METHODS)


def counted(session):
    return Counter((event.probe, event.pid) for event in session.drain())


def test_names_of_several_functions_and_probes(method, stepper):
    target = stepper()
    with trace.Session(pid=target.pid, method=method) as session:
        session.usdt("step:*").emit("pid")
        session.uprobe(target.path, "work").emit("pid")
        session.uretprobe(target.path, "work").emit("retval")
        session.start()
        assert target.fire(97) == 97
        events = list(session.drain())
        assert session.summary().hits == 4 * 97
    assert Counter(event.probe for event in events) == {"step:plain": 97, "step:guarded": 97, "work": 2 * 97}
    assert [event.retval for event in events if hasattr(event, "retval")] == [-n for n in range(97)]


@pytest.mark.parametrize("by_pid", [True, False])
def test_the_semaphore_is_raised_as_long_as_somebody_traces(method, by_pid, stepper):
    target = stepper()
    assert target.fire(13) == 0
    with trace.Session(pid=target.pid if by_pid else None, method=method) as session:
        session.usdt("step:guarded", path=target.path).emit(n=trace.arg(1))
        session.start()
        assert target.fire(97) == 97
        assert [event.n for event in session.drain()] == list(range(97))
        session.detach()
        assert target.fire(13) == 0
    assert target.fire(13) == 0


def test_a_semaphore_of_a_process_that_starts_later(method, stepper):
    with trace.Session(method=method) as session:
        before = stepper()
        session.usdt("step:guarded", path=before.path).emit("pid")
        session.start()
        after = stepper()
        assert after.fire(97) == before.fire(97) == 97
        assert counted(session) == {("step:guarded", before.pid): 97, ("step:guarded", after.pid): 97}
    assert after.fire(13) == before.fire(13) == 0


def test_only_the_chosen_process(method, stepper):
    chosen, other = stepper(), stepper()
    with trace.Session(pid=chosen.pid, method=method) as session:
        session.usdt("step:*").emit("pid")
        session.uprobe(chosen.path, "work").emit("pid")
        session.uretprobe(chosen.path, "work").emit("pid")
        session.start()
        chosen.fire(97)
        assert other.fire(997) == 0
        names = {"step:plain": 97, "step:guarded": 97, "work": 2 * 97}
        assert counted(session) == {(name, chosen.pid): times for name, times in names.items()}


def test_two_chosen_of_three_processes(method, stepper):
    first, second, other = stepper(), stepper(), stepper()
    with trace.Session(pid=[first.pid, second.pid], method=method) as session:
        session.usdt("step:plain").emit("pid")
        session.start()
        for target in (first, second, other):
            target.fire(97)
        assert counted(session) == {("step:plain", first.pid): 97, ("step:plain", second.pid): 97}


def test_all_threads_of_the_chosen_process(method, compile_c, ready):
    path = compile_c("threads.c", "-pthread")
    chosen, other = ready([path, 10, 997]), ready([path, 10, 997])
    with trace.Session(pid=chosen.pid, method=method) as session:
        session.usdt("pool:work", path=str(path)).emit("tid")
        counts = session.uretprobe(str(path), "work").count("tid")
        session.start()
        for process in (other, chosen):
            process.stdin.write("go\n")
            process.stdin.flush()
        tids = {int(line.split()[3]): 997 for line in chosen.stdout if line.startswith("thread")}
        other.wait(20)
        assert Counter(event.tid for event in session) == tids
        assert counts.read() == {(tid,): times for tid, times in tids.items()}
    assert len(tids) == 10


def test_the_arguments_and_the_result_of_a_function(method, compile_c, ready):
    path = compile_c("threads.c", "-pthread")
    process = ready([path, 1, 97])
    with trace.Session(pid=process.pid, method=method) as session:
        work = session.pair(trace.uprobe(str(path), "work"), keep={"thread": trace.arg(1), "i": trace.arg(2)})
        work.emit("latency", "thread", "i", "retval")
        session.start()
        process.stdin.write("go\n")
        process.stdin.flush()
        events = list(session)
    assert [(event.thread, event.i, event.retval) for event in events] == [(0, n, n) for n in range(97)]
    assert all(0 < event.latency_ns < 10**9 for event in events)


def test_detaching_puts_the_original_instruction_back(method, stepper):
    target = stepper()
    [probe] = targets.find_probes("step:plain", path=target.path)
    [function] = targets.find_functions(target.path, ["work"])
    offsets = [probe.sites[0].file_offset, function.file_offset]
    before = [target.first_byte(offset) for offset in offsets]
    assert before[0] == b"\x90"
    with trace.Session(method=method) as session:
        session.usdt("step:plain", path=target.path).count()
        session.uprobe(target.path, "work").count()
        session.start()
        assert [target.first_byte(offset) for offset in offsets] == [b"\xcc", b"\xcc"]
    assert [target.first_byte(offset) for offset in offsets] == before
    target.fire(97)


REFUSED = """
#define NAMED(name, code) \\
    __asm__(".text; .globl " #name "; .type " #name ", @function; " #name ": " code "; ret; .size " #name ", .-" #name)
NAMED(good_first, "nop");
NAMED(bad_first, "lock cmpxchg %eax, (%rdi)");
NAMED(good_second, "push %rax; pop %rax");
NAMED(bad_second, "lock incl (%rdi)");
NAMED(good_third, "nop");
#include <stdio.h>
void good_first(void), good_second(void), good_third(void);
int main(void) { puts("ready"); fflush(stdout); getchar(); good_first(); good_second(); good_third(); return 0; }
"""


def test_what_the_kernel_refuses_is_named_and_the_rest_attached(method, compile_c, ready):
    path = str(compile_c(REFUSED, "-O2"))
    process, other = ready([path]), ready([path])
    offsets = {function.name: function.file_offset for function in targets.find_functions(path, ["good_*", "bad_*"])}
    with trace.Session(pid=[process.pid, other.pid], method=method) as session:
        session.uprobe(path, "good_*", "bad_*").emit()
        session.start()
        refused = sorted(refusal.file_offset for refusal in session.refused)
        assert refused == sorted([offsets["bad_first"], offsets["bad_second"]])
        assert all(refusal.path == path and "cannot probe" in refusal.reason for refusal in session.refused)
        assert sorted(refusal.name for refusal in session.refused) == ["bad_first", "bad_second"]
        process.stdin.close()
        process.wait(20)
        assert [event.probe for event in session.drain()] == ["good_first", "good_second", "good_third"]


def test_it_is_an_error_when_the_kernel_takes_none(method, compile_c, ready):
    path = str(compile_c(REFUSED, "-O2"))
    ready([path])
    with trace.Session(method=method) as session:
        session.uprobe(path, "bad_*").count()
        with pytest.raises(UnsupportedError, match="none of the 2 sites") as raised:
            session.start()
    assert raised.value.hint


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_went_between_finding_and_attaching(method, replaced, compile_c, tmp_path, stepper):
    copy = tmp_path / "copy"
    shutil.copy(compile_c("stepper.c", "-O2"), copy)
    target = stepper(copy)
    with trace.Session(method=method) as session:
        session.usdt("step:plain", path=copy).emit("pid")
        session.uprobe(copy, "work").emit("pid")
        if replaced:
            shutil.copy(compile_c("values.c", "-O1"), tmp_path / "other")
            (tmp_path / "other").rename(copy)
        else:
            copy.unlink()
        session.start()
        target.fire(997)
        assert counted(session) == {("step:plain", target.pid): 997, ("work", target.pid): 997}


def test_an_unknown_method_is_refused(method, declare):
    probe = declare("own:method", n="u64")
    with trace.Session(method=f"{method}s") as session:
        session.usdt("own:method", path=probe.path).count()
        with pytest.raises(UsageError, match=f"{method}s") as raised:
            session.start()
    assert method in raised.value.hint


def test_the_hooks_of_a_file_share_two_links_and_count_for_themselves(method, stepper):
    target = stepper()
    with trace.Session(pid=target.pid, method=method) as session:
        probes = [session.usdt("step:plain", path=target.path).count() for _ in range(2)]
        entries = [session.uprobe(target.path, "work").count() for _ in range(3)]
        returns = session.uretprobe(target.path, "work").count()
        session.start()
        links = [number for kind, number in leaks.bpf_objects(os.getpid()) if kind == "link_id"]
        assert len(links) == 2 or method != "uprobe_multi"
        target.fire(997)
        session.detach()
        for counted in (*probes, *entries, returns):
            assert counted.read() == {(): 997}
