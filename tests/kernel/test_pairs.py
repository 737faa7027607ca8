"""Starts and ends find each other: in recursion, after longjmp, nested, in threads; what has no partner is counted."""

import os
from collections import Counter

import pytest

from usdtkit import trace
from usdtkit.bpf.pairs import KEY_ENTRIES, NESTING, PAIR_ENTRIES
from usdtkit.errors import UsageError


def go(process):
    """Let the target run; its lines, as lists of words."""
    return [line.split() for line in process.communicate("go\n", timeout=60)[0].splitlines()]


def about(measured, expected):
    """Measured from outside, a call takes longer: by the probes, and by what a loaded machine puts between."""
    return expected <= measured < expected + 1_000_000_000


def nested(calls):
    """Whether each call, told as (level, latency) in order of its end, took longer than all those within it."""
    within = Counter()
    for level, latency in calls:
        if latency <= within.pop(level + 1, 0):
            return False
        within[level] += latency
    return True


@pytest.fixture
def pairs(compile_c, ready):
    """pairs(pattern, times=1, threads=1) -> (events, lines of the target as numbers, summary)."""
    path = str(compile_c("pairs.c", "-O2", "-pthread"))

    def run(pattern, times=1, threads=1, **options):
        process = ready([path, pattern, times, threads])
        with trace.Session(pid=process.pid) as session:
            pair = session.pair(
                trace.usdt("nest:start"),
                trace.usdt("nest:end"),
                keep={"serial": trace.arg(1), "text": trace.cstr(2, 16)},
                **options,
            )
            pair.emit("latency", "serial", "text", "tid", ended=trace.arg(1))
            session.start()
            lines = [[int(word) for word in line] for line in go(process)]
            events = list(session)
        return events, lines, session.summary()

    return run


def test_a_recursive_function_measured_by_itself(compile_c, ready):
    path = str(compile_c("recursive.c"))
    process = ready([path, 7, 13])
    with trace.Session(pid=process.pid) as session:
        calls = session.pair(trace.uprobe(path, "descend"), keep={"depth": trace.arg(1).cast("i32")})
        calls.emit("latency", "depth", below=trace.retval.cast("i32"))
        session.start()
        told = [(int(depth), int(ns)) for depth, ns in go(process)]
        events = list(session)
    assert [event.depth for event in events] == [depth for depth, _ in told] == list(range(1, 8)) * 13
    assert [event.below for event in events] == [depth - 1 for depth, _ in told]
    assert all(about(event.latency_ns, ns) for event, (_, ns) in zip(events, told, strict=True))
    assert nested((-event.depth, event.latency_ns) for event in events)
    assert session.summary().unmatched == session.summary().overflow == 0


def test_a_recursion_deeper_than_any_nesting_of_probes(compile_c, ready):
    path = str(compile_c("recursive.c"))
    process = ready([path, 61, 1])  # the kernel itself follows 64 pending returns
    with trace.Session(pid=process.pid) as session:
        session.pair(trace.uprobe(path, "descend"), keep={"depth": trace.arg(1)}).emit("depth")
        session.start()
        go(process)
        assert [event.depth for event in session] == list(range(1, 62))


def test_calls_that_longjmp_left_do_not_shift_the_others(compile_c, ready):
    path = str(compile_c("longjmp.c", "-O1"))
    process = ready([path, 997, 10])
    with trace.Session(pid=process.pid) as session:
        calls = session.pair(trace.uprobe(path, "outer", "middle", "inner"), keep={"i": trace.arg(1)})
        calls.emit("latency", "i", "retval")
        session.start()
        told = {words[0]: int(words[4]) for words in go(process)}
        events = list(session)
        assert Counter(event.probe for event in events) == told == {"outer": 997, "middle": 898, "inner": 898}
    result = {"outer": lambda i: i + 1 if i % 10 else -1, "middle": lambda i: i + 1, "inner": lambda i: i}
    assert all(event.retval == result[event.probe](event.i) for event in events)
    assert [event.i for event in events if event.probe == "outer"] == list(range(1, 998))
    assert (session.summary().unmatched, session.summary().abandoned) == (0, 2 * 99)


def test_probes_nested_in_one_thread(pairs):
    events, lines, summary = pairs("(.(.)(.(.)))", 97)
    assert [event.serial for event in events] == [event.ended for event in events] == [line[1] for line in lines]
    assert all(about(event.latency_ns, line[2]) for event, line in zip(events, lines, strict=True))
    assert [event.text for event in events] == [f"start {event.serial}"[:16] for event in events]
    level = (2, 0, 1, 1)  # by the serial modulo 4
    assert nested((level[event.serial % 4], event.latency_ns) for event in events)
    assert (summary.hits, summary.received, summary.unmatched) == (97 * 4, 97 * 4, 0)


def test_two_threads_at_once(pairs):
    events, lines, _ = pairs("(.(.))", 97, 2)
    assert len(lines) == 2 * 2 * 97
    for thread in {line[0] for line in lines}:
        own = [event for event in events if event.tid == thread]
        expected = [line for line in lines if line[0] == thread]
        assert [event.serial for event in own] == [event.ended for event in own] == [line[1] for line in expected]
        assert all(about(event.latency_ns, line[2]) for event, line in zip(own, expected, strict=True))


def test_ends_without_a_start_are_counted(pairs):
    events, _, summary = pairs("())(.))", 97)
    assert [event.serial for event in events] == [event.ended for event in events] == list(range(1, 2 * 97 + 1))
    assert (summary.hits, summary.unmatched) == (2 * 97, 2 * 97)


def test_a_start_without_an_end_does_not_shift_those_within(pairs):
    events, lines, summary = pairs("(()", 13)
    assert [event.serial for event in events] == [line[1] for line in lines]
    assert summary.hits == 13


def test_too_many_open_starts_are_dropped_counted_and_then_all_is_right_again(pairs):
    deep = NESTING + 1
    events, lines, summary = pairs("(" * deep + ")" * deep + "(())" * 3)
    # The last start opened a new stack; its end comes first. Those before it were dropped.
    assert [event.serial for event in events] == [deep, *(line[1] for line in lines[deep:])]
    assert all(event.serial == event.ended for event in events)
    assert (summary.hits, summary.overflow, summary.unmatched) == (1 + 6, NESTING, NESTING)


def test_starts_may_be_nested_deeper_where_that_is_asked_for(pairs):
    events, lines, summary = pairs("(" * 997 + ")" * 997, nesting=997)
    assert [event.serial for event in events] == [line[1] for line in lines]
    assert (summary.hits, summary.overflow, summary.unmatched) == (997, 0, 0)


def test_starts_that_never_end_neither_fill_the_table_nor_hide_the_others(pairs):
    starts = 20 * NESTING
    events, _, summary = pairs("(" * starts + ".()")
    assert [event.serial for event in events] == [starts + 1]
    assert summary.full == 0
    assert summary.overflow == starts


LEFT = """
#include <pthread.h>
#include <sys/sdt.h>
#include "program.h"
static pthread_barrier_t all;
static void *open_some(void *waits)
{
    for (int i = 0; i < %d; i++) DTRACE_PROBE1(left, start, "text");
    if (waits) { pthread_barrier_wait(&all); pthread_barrier_wait(&all); }
    return waits;
}
int main(int argc, char **argv)
{
    long threads = number(argc, argv, 1, 1), together = number(argc, argv, 2, 0);
    pthread_t *started = calloc(threads, sizeof *started);
    await_go();
    pthread_barrier_init(&all, 0, threads + 1);
    for (long i = 0; i < threads; i++) {
        if (pthread_create(&started[i], 0, open_some, together ? &all : 0)) return 1;
        if (!together) pthread_join(started[i], 0);
    }
    if (together) {
        pthread_barrier_wait(&all);
        puts("open");
        await_go();
        pthread_barrier_wait(&all);
        for (long i = 0; i < threads; i++) pthread_join(started[i], 0);
    }
    DTRACE_PROBE(left, end);
    return 0;
}"""


@pytest.fixture
def left(compile_c, ready):
    """left(starts, threads) -> summary, when so many threads have ended one after the other and left so many starts."""

    def run(starts, threads):
        process = ready([compile_c(LEFT % starts, "-pthread"), threads])
        with trace.Session(pid=process.pid) as session:
            session.pair(trace.usdt("left:start"), trace.usdt("left:end")).count()
            session.start()
            go(process)
            for _ in session:
                pass
        return session.summary()

    return run


def test_starts_of_threads_that_ended_are_dropped_counted_and_leave_room(left):
    threads = PAIR_ENTRIES + 97
    summary = left(2, threads)
    assert (summary.hits, summary.full, summary.unmatched, summary.abandoned) == (0, 0, 1, 2 * threads)


def test_a_thread_that_ends_leaves_nothing_of_what_it_had_too_much_of(left):
    threads = PAIR_ENTRIES // (32 - 5) + 97  # whose leftovers would fill the table
    summary = left(37, threads)
    assert (summary.full, summary.overflow, summary.abandoned) == (0, 32 * threads, 5 * threads)


def test_more_open_starts_than_the_table_holds_are_counted(compile_c, ready, wait_for_line):
    path = str(compile_c(LEFT % 31, "-pthread"))
    process = ready([path, 41, 1])
    with trace.Session(pid=process.pid) as session:
        pair = session.pair(trace.usdt("left:start"), trace.usdt("left:end"), keep={"text": trace.cstr(1, 4096)})
        pair.count()
        session.start()
        process.stdin.write("go\n")
        process.stdin.flush()
        wait_for_line(process, "open")
        full = session.summary().full
        assert 0 < full < 31 * 41
        go(process)
        for _ in session:
            pass
    assert (session.summary().full, session.summary().abandoned) == (full, 31 * 41 - full)


SAME_NUMBER = """
#define _GNU_SOURCE
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/sdt.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "program.h"
static pid_t child(pid_t wanted)
{
    struct clone_args args = { .exit_signal = SIGCHLD, .set_tid_size = wanted != 0 };
    if (wanted) args.set_tid = (uint64_t)&wanted;
    return syscall(SYS_clone3, &args, sizeof args);
}
int main(void)
{
    await_go();
    pid_t first = child(0);
    if (!first) { DTRACE_PROBE1(same, start, 13); DTRACE_PROBE1(same, start, 14); _exit(0); }
    waitpid(first, 0, 0);
    pid_t second = child(first);
    if (!second) { DTRACE_PROBE1(same, end, 14); DTRACE_PROBE1(same, start, 7); DTRACE_PROBE1(same, end, 7); _exit(0); }
    waitpid(second, 0, 0);
    printf("%d %d\\n", first, second);
    return 0;
}"""


@pytest.mark.parametrize("key", [None, trace.arg(1)])
def test_a_thread_does_not_end_what_one_of_its_number_has_left(compile_c, ready, key):
    path = str(compile_c(SAME_NUMBER))
    process = ready([path])
    with trace.Session() as session:
        pair = session.pair(
            trace.usdt("same:start", path), trace.usdt("same:end", path), keep={"n": trace.arg(1)}, key=key
        )
        pair.emit("n")
        session.start()
        [[first, second]] = go(process)
        events = [(event.pid, event.n) for event in session.drain()]
        assert first == second
        assert events == [(int(second), 7)]
        summary = session.summary()
    assert (summary.hits, summary.unmatched, summary.abandoned) == (1, 1, 2)


EXECS = """
#include <pthread.h>
#include <sys/sdt.h>
#include <unistd.h>
#include "program.h"
static void *again(void *program)
{
    DTRACE_PROBE1(again, start, 7);
    execl(program, program, "again", (char *)0);
    return 0;
}
int main(int argc, char **argv)
{
    pthread_t thread;
    if (argc > 1) { DTRACE_PROBE1(again, end, 7); return 0; }
    await_go();
    DTRACE_PROBE1(again, start, 13);
    pthread_create(&thread, 0, again, argv[0]);
    pthread_join(thread, 0);
    return 1;
}"""


@pytest.mark.parametrize(("key", "dropped"), [(None, 2), (trace.arg(1), 2)])
def test_exec_ends_nothing_that_was_open_before(compile_c, ready, key, dropped):
    path = str(compile_c(EXECS, "-pthread"))
    process = ready([path])
    with trace.Session() as session:
        session.pair(trace.usdt("again:start", path), trace.usdt("again:end", path), key=key).count()
        session.start()
        go(process)
        assert process.wait(20) == 0
        summary = session.summary()
    assert (summary.hits, summary.unmatched, summary.abandoned) == (0, 1, dropped)


def test_pairs_of_a_function_and_a_probe_and_of_a_call_by_its_value(compile_c, ready):
    path = str(compile_c("threads.c", "-pthread"))
    process = ready([path, 3, 97])
    with trace.Session(pid=process.pid) as session:
        entry, inside, exit = trace.uprobe(path, "work"), trace.usdt("pool:work"), trace.uretprobe(path, "work")
        keep = {"number": trace.arg(1), "i": trace.arg(2)}
        value = trace.arg(1) * 1_000_000 + trace.arg(2)
        wanted = [
            (entry, inside, None),
            (inside, exit, None),
            (inside, exit, (value, trace.retval)),
            (entry, None, (value, trace.retval)),
            (entry, exit, None),
        ]
        for number, (start, end, key) in enumerate(wanted):
            source = session.pair(start, end, keep=keep, key=key)
            source.emit("number", "i", pair=trace.tid * 0 + number)
        session.start()
        go(process)
        seen = Counter((event.pair, event.number, event.i) for event in session)
    assert set(seen.values()) == {1}
    assert len(seen) == 5 * 3 * 97
    summary = session.summary()
    assert (summary.hits, summary.unmatched, summary.abandoned) == (5 * 3 * 97, 0, 0)


HANDLES = """
#include <pthread.h>
#include <sys/sdt.h>
#include "program.h"
static long times, *opened;
static uint64_t *since;
NOINLINE long make(long id) { __asm__ volatile(""); return id * 3 + 1; }
NOINLINE void release(long unused, long handle) { __asm__ volatile("" :: "r"(handle)); }
static void *open_all(void *unused)
{
    for (long id = 0; id < times; id++) {
        DTRACE_PROBE1(handles, opened, id);
        since[id] = now_ns();
        opened[id] = make(id);
    }
    return unused;
}
static void *close_all(void *unused)
{
    for (long id = times; id--;) {
        printf("%ld %llu\\n", id, (unsigned long long)(now_ns() - since[id]));
        DTRACE_PROBE2(handles, closed, 0, id);
        release(0, opened[id]);
    }
    return unused;
}
int main(int argc, char **argv)
{
    pthread_t first, second;
    times = number(argc, argv, 1, 1);
    opened = calloc(times, sizeof *opened), since = calloc(times, sizeof *since);
    await_go();
    pthread_create(&first, 0, open_all, 0);
    pthread_join(first, 0);
    pthread_create(&second, 0, close_all, 0);
    pthread_join(second, 0);
    return 0;
}"""


def test_what_one_thread_opens_another_closes(compile_c, ready):
    path = str(compile_c(HANDLES, "-O1", "-pthread"))
    process = ready([path, 997])
    with trace.Session(pid=process.pid) as session:
        ids = session.pair(
            trace.usdt("handles:opened"), trace.usdt("handles:closed"), key=("arg1", trace.arg(2)), keep=["tid"]
        )
        ids.emit("latency", "tid", id=trace.arg(2), opener=ids.kept("tid"))
        handles = session.pair(
            trace.uretprobe(path, "make"), trace.uprobe(path, "release"), key=(trace.retval, trace.arg(2))
        )
        handles.emit(handle=trace.arg(2))
        session.start()
        told = [(int(id), int(ns)) for id, ns in go(process)]
        events = list(session)
    closed = [event for event in events if hasattr(event, "id")]
    assert [event.id for event in closed] == [id for id, _ in told] == list(range(997))[::-1]
    assert all(event.opener != event.tid for event in closed)
    assert all(about(event.latency_ns, ns) for event, (_, ns) in zip(closed, told, strict=True))
    assert [event.handle for event in events if hasattr(event, "handle")] == [id * 3 + 1 for id in range(997)][::-1]
    summary = session.summary()
    assert (summary.hits, summary.unmatched, summary.abandoned) == (2 * 997, 0, 0)


def test_a_key_that_starts_again_counts_from_then_and_is_its_process_own(declare):
    begin, end = declare("keyed:begin", n="i64", text="str"), declare("keyed:end", n="i64", text="str")
    with trace.Session() as session:
        specs = [trace.usdt(f"keyed:{probe.name}", path=probe.path) for probe in (begin, end)]
        session.pair(*specs, key="n", keep={"first": trace.arg("text")}).emit("first", "n")
        session.start()
        begin(-1, "replaced")
        begin(-1, "again")
        begin(2**63 - 1, "other")
        if not (child := os.fork()):
            end(-1, "child")
            begin(5, "of the child")
            begin(6, "of the child")
            end(6, "child")
            os._exit(0)
        os.waitpid(child, 0)
        for n in (5, -1, -1, 2**63 - 1):
            end(n, "")
        events = [(event.pid == os.getpid(), event.first, event.n) for event in session.drain()]
        summary = session.summary()
    assert events == [(False, "of the child", 6), (True, "again", -1), (True, "other", 2**63 - 1)]
    assert (summary.hits, summary.unmatched, summary.abandoned) == (3, 1 + 2, 1 + 1)


def test_more_open_keys_than_there_is_room_for_forget_the_oldest(declare):
    begin, end = declare("many:begin", n="u64"), declare("many:end", n="u64")
    times = KEY_ENTRIES + 997
    with trace.Session() as session:
        specs = [trace.usdt(f"many:{probe.name}", path=probe.path) for probe in (begin, end)]
        session.pair(*specs, key="n").count()
        session.start()
        for n in range(times):
            begin(n)
        for n in reversed(range(times)):
            end(n)
        summary = session.summary()
    assert summary.hits + summary.unmatched == times
    assert KEY_ENTRIES // 2 < summary.hits <= KEY_ENTRIES
    assert summary.full == 0


def test_keys_are_integers_and_starts_need_an_end(declare):
    probe = declare("own:pair", text="str")
    spec = trace.usdt("own:pair", path=probe.path)
    with trace.Session() as session:
        session.pair(spec, spec, key="text").count()
        with pytest.raises(UsageError, match=r"own:pair.*an integer is needed here"):
            session.start()
    with trace.Session() as session:
        for start in (spec, trace.uretprobe("c", "getaddrinfo")):
            with pytest.raises(UsageError, match="needs its end"):
                session.pair(start)


def test_conditions_on_what_was_kept_and_on_latency(compile_c, ready):
    digits = 1 + (trace.arg(1) > 9) + (trace.arg(1) > 99)
    length = 6 + digits
    path = str(compile_c("pairs.c", "-O2", "-pthread"))
    process = ready([path, "(.)()", 97])
    with trace.Session(pid=process.pid) as session:
        pair = session.pair(
            trace.usdt("nest:start"),
            trace.usdt("nest:end"),
            keep={"serial": trace.arg(1), "text": trace.cstr(2, 16), "data": trace.buffer(2, length, 16)},
        )
        pair.where(pair.latency >= trace.us(50)).emit("serial")
        pair.where(pair.kept("text") == "start 96").emit(exactly=pair.kept("serial"))
        pair.where(pair.kept("text").startswith("start 9")).emit(prefix=pair.kept("serial"))
        pair.where(pair.kept("text").matches("start ?9")).emit(glob=pair.kept("serial"))
        pair.where(pair.kept("data") == b"start 95").emit(data=pair.kept("serial"))
        pair.where(pair.kept("data").endswith(b"t 7")).emit(ends=pair.kept("serial"))
        session.start()
        go(process)
        events = list(session)
    slow = {event.serial for event in events if hasattr(event, "serial")}
    assert slow >= set(range(1, 2 * 97, 2))
    assert [event.exactly for event in events if hasattr(event, "exactly")] == [96]
    assert [event.prefix for event in events if hasattr(event, "prefix")] == [9, *range(90, 100)]
    assert [event.glob for event in events if hasattr(event, "glob")] == [*range(19, 100, 10)]
    assert [event.data for event in events if hasattr(event, "data")] == [95]
    assert [event.ends for event in events if hasattr(event, "ends")] == [7]


def test_a_literal_longer_than_what_is_kept_is_an_error(compile_c):
    path = str(compile_c("pairs.c", "-O2", "-pthread"))
    with trace.Session() as session:
        pair = session.pair(
            trace.usdt("nest:start", path), trace.usdt("nest:end", path), keep={"text": trace.cstr(2, 4)}
        )
        pair.where(pair.kept("text") == "start").count()
        with pytest.raises(UsageError, match="keeps 4 bytes") as raised:
            session.start()
    assert "5" in raised.value.hint


FILLED = """
#include <pthread.h>
#include <stdio.h>
#include "program.h"

NOINLINE long say(const char *text) { __asm__ volatile("" ::: "memory"); return text[0]; }

NOINLINE long run(long depth, const char *text, long length)
{
    char own[12];
    snprintf(own, sizeof own, "depth %5ld", depth);
    long sum = depth ? run(depth - 1, "", 0) : 0;
    sum += say(own) + say("too late...");
    __asm__ volatile("" ::: "memory");
    return sum;
}

static void *go(void *depth)
{
    for (int i = 0; i < 97; i++) {
        run((long)depth, "", 0);
        run((long)depth, "at once", 7);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[3];
    await_go();
    say("before.....");
    for (long depth = 0; depth < 3; depth++)
        pthread_create(&threads[depth], NULL, go, (void *)depth);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    say("after......");
    return 0;
}
"""


@pytest.mark.parametrize("key", [None, trace.tid])
@pytest.mark.parametrize("returns", ["sites", "probes"])
def test_texts_that_are_learnt_between_start_and_end(returns, key, compile_c, ready):
    """The first text stays, and a call that has called itself is not found again; what fills is no result."""
    path = str(compile_c(FILLED, "-O1", "-pthread"))
    process = ready([path])
    with trace.Session(pid=process.pid, returns=returns) as session:
        keep = {"depth": trace.arg(1), "text": trace.buffer(2, trace.arg(3), 64)}
        pair = session.pair(trace.uprobe(path, "run"), keep=keep, key=key)
        pair.fill(session.uprobe(path, "say"), text=trace.buffer(1, 11, 64)).emit("depth", "text")
        session.start()
        go(process)
        found = Counter((event.depth, event.text) for event in session)
        summary = session.summary()
    outer = {(1, b""): 3 * 97, (2, b""): 97, **{(depth, b"at once"): 97 for depth in (1, 2)}}
    assert found == {
        (0, b"depth     0"): 5 * 97,  # all but the calls of the first thread that have their text at once
        (0, b"at once"): 97,
        **(outer if key is None else {}),  # by thread, a call that is within another replaces it
    }
    assert summary.hits == summary.received == sum(found.values())
    assert (summary.lost, summary.unreadable) == (0, 0)


def test_texts_between_probes(compile_c, ready):
    """The innermost of the pairs that nest is filled: the program formats a text before each start."""
    path = str(compile_c("pairs.c", "-O2", "-pthread"))
    process = ready([path, "(()(()))", 97, 2])
    with trace.Session(pid=process.pid) as session:
        nothing = {"text": trace.cstr(trace.tid * 0, 16)}
        pair = session.pair(trace.usdt("nest:start"), trace.usdt("nest:end"), keep=nothing)
        pair.fill(session.uprobe("c", "snprintf"), text=trace.cstr(3, 16)).emit("text")
        session.start()
        go(process)
        texts = Counter(event.text for event in session)
    assert texts == {"start %ld": 2 * 2 * 97, None: 2 * 2 * 97}


def test_an_empty_string_is_filled(compile_c, ready):
    path = str(compile_c(FILLED, "-O1", "-pthread"))
    process = ready([path])
    with trace.Session(pid=process.pid) as session:
        pair = session.pair(trace.uprobe(path, "run"), keep={"depth": trace.arg(1), "text": trace.cstr(2, 16)})
        pair.fill(session.uprobe(path, "say"), text=trace.cstr(1, 16)).where(pair.kept("depth") == 0).emit("text")
        session.start()
        go(process)
        texts = Counter(event.text for event in session)
    assert texts == {"depth     0": 5 * 97, "at once": 97}


def test_only_what_a_pair_keeps_as_a_text_can_be_filled(compile_c):
    path = str(compile_c(FILLED, "-O1", "-pthread"))
    with trace.Session(command=[path]) as session:
        pair = session.pair(trace.uprobe(path, "run"), keep={"depth": trace.arg(1), "text": trace.cstr(2, 16)})
        with pytest.raises(UsageError, match="keeps no 'other'"):
            pair.fill(session.uprobe(path, "say"), other=trace.cstr(1))
        pair.fill(session.uprobe(path, "say"), depth=trace.arg(1)).emit("text")
        with pytest.raises(UsageError, match="is not what the pair keeps"):
            session.program()
