"""Starts and ends find each other: in recursion, after longjmp, nested, in threads; what has no partner is counted."""

from collections import Counter

import pytest

from usdtkit import trace
from usdtkit.bpf.program import MAX_NESTING, PAIR_ENTRIES
from usdtkit.errors import UsageError


def go(process):
    """Let the target run; its lines, as lists of words."""
    return [line.split() for line in process.communicate("go\n", timeout=60)[0].splitlines()]


def about(measured, expected):
    """Measured from outside, a call takes longer: by the probes, and by what a loaded machine puts between."""
    return expected <= measured < expected + 20_000_000


def nested(events):
    """Whether each call, in order of its end, holds an earlier one whole, or began after it."""
    spans = [(event.time_ns - event.latency_ns, event.time_ns) for event in events]
    return all(late[0] <= early[0] or late[0] >= early[1] for i, late in enumerate(spans) for early in spans[:i])


@pytest.fixture
def pairs(compile_c, ready):
    """pairs(pattern, times=1, threads=1) -> (events, lines of the target as numbers, summary)."""
    path = str(compile_c("pairs.c", "-O2", "-pthread"))

    def run(pattern, times=1, threads=1):
        process = ready([path, pattern, times, threads])
        with trace.Session(pid=process.pid) as session:
            pair = session.pair(
                trace.usdt("nest:start"),
                trace.usdt("nest:end"),
                keep={"serial": trace.arg(1), "text": trace.cstr(2, 16)},
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
    assert nested(events)
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
    assert session.summary().unmatched == 0


def test_probes_nested_in_one_thread(pairs):
    events, lines, summary = pairs("(.(.)(.(.)))", 97)
    assert [event.serial for event in events] == [event.ended for event in events] == [line[1] for line in lines]
    assert all(about(event.latency_ns, line[2]) for event, line in zip(events, lines, strict=True))
    assert [event.text for event in events] == [f"start {event.serial}"[:16] for event in events]
    assert nested(events)
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
    deep = MAX_NESTING + 1
    events, lines, summary = pairs("(" * deep + ")" * deep + "(())" * 3)
    # The last start opened a new stack; its end comes first. Those before it were dropped.
    assert [event.serial for event in events] == [deep, *(line[1] for line in lines[deep:])]
    assert all(event.serial == event.ended for event in events)
    assert (summary.hits, summary.overflow, summary.unmatched) == (1 + 6, MAX_NESTING, MAX_NESTING)


def test_starts_that_never_end_neither_fill_the_table_nor_hide_the_others(pairs):
    starts = 20 * MAX_NESTING
    events, _, summary = pairs("(" * starts + ".()")
    assert [event.serial for event in events] == [starts + 1]
    assert summary.full == 0
    assert summary.overflow == starts


def test_more_open_calls_than_the_table_holds_are_counted(compile_c, ready):
    # One start a thread, and more threads one after the other than there is room for.
    source = """
    #include <pthread.h>
    #include <stdio.h>
    #include <sys/sdt.h>
    static void *once(void *left) { DTRACE_PROBE(left, start); return left; }
    int main(void)
    {
        pthread_t thread;
        printf("ready\\n"); fflush(stdout); getchar();
        for (int i = 0; i < %d; i++) { pthread_create(&thread, 0, once, 0); pthread_join(thread, 0); }
        DTRACE_PROBE(left, end);
        return 0;
    }"""
    entries, beyond = PAIR_ENTRIES, 97
    path = str(compile_c(source % (entries + beyond), "-pthread"))
    process = ready([path])
    with trace.Session(pid=process.pid) as session:
        session.pair(trace.usdt("left:start"), trace.usdt("left:end")).count()
        session.start()
        go(process)
        for _ in session:
            pass
    assert (session.summary().full, session.summary().unmatched) == (beyond, 1)


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
