"""What was fired is received: all of it, with its arguments, from Python and C, threads and processes."""

import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from usdtkit import trace
from usdtkit.errors import NotFoundError, UsageError, UsdtkitError

FIRING = Path(__file__).parents[1] / "programs" / "firing.py"


@pytest.fixture
def service(spawn, wait_for_line):
    """service(*arguments) -> (process, path of its provider file), loaded and waiting for a line."""

    def start(*arguments):
        process = spawn([sys.executable, FIRING, *arguments])
        return process, wait_for_line(process, "ready").split()[1]

    return start


def go(process):
    process.stdin.write("go\n")
    process.stdin.flush()


def test_a_python_service_with_an_integer_and_a_string(service, wait_for_line):
    process, _ = service(997)
    with trace.Session(pid=process.pid) as session:
        session.usdt("counted:order__start").emit("order_id", "customer")
        session.start()
        go(process)
        assert wait_for_line(process, "fired") == "fired 997"
        events = list(session)  # ends with the process
    assert [(event.order_id, event.customer) for event in events] == [(n, f"customer {n}") for n in range(997)]
    assert {event.pid for event in events} == {process.pid}
    summary = session.summary()
    assert (summary.hits, summary.received, summary.lost) == (997, 997, 0)


def test_a_c_program(stepper):
    target = stepper()
    with trace.Session(pid=target.pid) as session:
        session.usdt("step:plain").emit(number=trace.arg(1), text=trace.cstr(2))
        session.start()
        target.fire(997)
        events = list(session.drain())
        summary = session.summary()
    assert [(event.number, event.text) for event in events] == [(n, f"customer {n}") for n in range(997)]
    assert (summary.hits, summary.received, summary.lost, summary.unreadable) == (997, 997, 0, 0)


def test_ten_threads(service):
    process, path = service(997, 10)
    with trace.Session(pid=process.pid) as session:
        session.usdt("counted:order__start", path=path).emit("order_id")
        session.start()
        go(process)
        ids = [event.order_id for event in session]
    assert sorted(ids) == sorted(t * 1_000_000 + n for t in range(10) for n in range(997))
    assert session.summary().lost == 0


def test_ten_threads_of_a_c_program(compile_c, ready):
    path = compile_c("threads.c", "-pthread")
    process = ready([path, 10, 997])
    with trace.Session(pid=process.pid) as session:
        session.usdt("pool:work", path=str(path)).emit("tid", thread=trace.arg(1))
        session.start()
        go(process)
        tids = {int(line.split()[1]): int(line.split()[3]) for line in process.stdout if line.startswith("thread")}
        assert Counter((event.thread, event.tid) for event in session) == Counter(dict.fromkeys(tids.items(), 997))


def test_two_processes_that_start_after_the_tracer(service, wait_for_line, run_python):
    build = run_python("from programs import firing; print(firing.provider.build())", "1")
    path = build.stdout.readline().strip()
    with trace.Session() as session:
        session.usdt("counted:order__start", path=path).emit("order_id")
        session.start()
        processes = [service(997) for _ in range(2)]
        assert [file for _, file in processes] == [path, path]
        for process, _ in processes:
            go(process)
            wait_for_line(process, "fired")
        events = list(session.drain())
        summary = session.summary()
    expected = Counter((process.pid, n) for process, _ in processes for n in range(997))
    assert Counter((event.pid, event.order_id) for event in events) == expected
    assert (summary.received, summary.lost) == (2 * 997, 0)


def test_one_hit_can_have_several_actions(declare):
    probe = declare("own:several", n="u64")
    with trace.Session() as session:
        source = session.usdt("own:several", path=probe.path)
        source.where(trace.arg("n") >= 900).emit("n")
        source.where(trace.arg("n") < 2).emit("n", double=trace.arg("n") * 2)
        counts = source.count()
        session.start()
        for n in range(997):
            probe(n)
        events = list(session.drain())
        assert counts.read() == {(): 997}
        assert {event._fields[4:] for event in events} == {("n",), ("n", "double")}
    assert [event.n for event in events] == [0, 1, *range(900, 997)]
    assert events[1].double == 2


def test_an_event_names_its_probe_process_and_time(declare):
    probe = declare("own:header", n="u64")
    before = time.monotonic_ns()
    with trace.Session() as session:
        session.usdt("own:header", path=probe.path).emit()
        session.start()
        probe(7)
        [event] = session.drain()
    assert event.probe == "own:header"
    assert (event.pid, event.tid) == (os.getpid(), threading.get_native_id())
    assert before < event.time_ns < time.monotonic_ns()
    assert abs(trace.wall_time(event.time_ns) - time.time()) < 60
    assert event.n == 7


def test_names_that_are_taken_by_an_argument(declare):
    probe = declare("own:names", **{"pid": "u64", "latency": "u64", "class": "str", "_id": "u64", "count": "u64"})
    with trace.Session() as session:
        session.usdt("own:names", path=probe.path).emit().emit("pid", "class", "latency")
        session.start()
        probe(1, 2, "three", 4, 5)
        everything, chosen = session.drain()
    assert (everything.arg_pid, everything.arg_latency, everything.arg_class) == (1, 2, "three")
    assert (everything.arg__id, everything.count) == (4, 5)
    assert (chosen.arg_pid, chosen.arg_class, chosen.arg_latency) == (1, "three", 2)


def test_the_events_of_an_iteration_that_was_left_come_with_the_next(declare):
    probe = declare("own:left", n="u64")
    with trace.Session(duration=60) as session:
        session.usdt("own:left", path=probe.path).emit("n")
        session.start()
        for n in range(997):
            probe(n)
        first = [next(iter(session)).n for _ in range(5)]
        for event in session.drain():
            first.append(event.n)
            if event.n == 100:
                break
        rest = [event.n for event in session.drain()]
    assert first + rest == list(range(997))


def test_duration_ends_the_iteration_also_under_load(compile_c, ready):
    path = compile_c("threads.c", "-pthread")
    process = ready([path, 2, 1_000_000_000])
    with trace.Session(duration=0.5, ring_size=1 << 20) as session:
        session.usdt("pool:work", path=str(path)).emit(n=trace.arg(2))
        session.start()
        go(process)
        received = sum(1 for _ in session)
        process.kill()
        summary = session.summary()
    assert received == summary.received > 0
    assert summary.received + summary.lost == summary.hits
    assert summary.duration_s >= 0.5


@pytest.mark.parametrize("duration", [1e12, float("inf")])
def test_a_duration_without_end(stepper, duration):
    target = stepper()
    with trace.Session(pid=target.pid, duration=duration) as session:
        session.usdt("step:plain").emit()
        session.start()
        target.fire(3)
        target.finish()
        assert len(list(session)) == 3


def test_stop_from_another_thread_also_under_load(compile_c, ready):
    path = compile_c("threads.c", "-pthread")
    process = ready([path, 2, 1_000_000_000])
    with trace.Session(ring_size=1 << 20) as session:
        session.usdt("pool:work", path=str(path)).emit(n=trace.arg(2))
        session.start()
        go(process)
        stopper = threading.Thread(target=session.stop)
        for number, _ in enumerate(session):
            if number == 997:
                stopper.start()
        stopper.join()
        process.kill()


def test_stop_from_a_signal_handler(declare):
    probe = declare("own:signalled", n="u64")
    with trace.Session() as session:
        session.usdt("own:signalled", path=probe.path).emit("n")
        session.start()
        for n in range(97):
            probe(n)
        before = signal.signal(signal.SIGUSR1, lambda *_: session.stop())
        try:
            signal.raise_signal(signal.SIGUSR1)
            assert [event.n for event in session] == list(range(97))
        finally:
            signal.signal(signal.SIGUSR1, before)
    session.stop()  # a signal may come late


def test_closing_within_the_iteration_ends_it(declare):
    probe = declare("own:closing", n="u64")
    with trace.Session() as session:
        session.usdt("own:closing", path=probe.path).emit("n")
        session.start()
        probe(1)
        probe(2)
        seen = []
        for event in session:
            seen.append(event.n)
            session.close()
    assert seen == [1]
    assert session.summary().received == 2  # it was taken out of the buffer, though nobody took it from there


def test_it_ends_when_the_last_of_its_processes_has_ended(stepper):
    first, second = stepper(), stepper()
    with trace.Session(pid=[first.pid, second.pid, first.pid]) as session:
        session.usdt("step:plain").emit()
        session.start()
        first.fire(97)
        first.finish()
        second.fire(13)
        second.finish()
        assert Counter(event.pid for event in session) == {first.pid: 97, second.pid: 13}


def test_a_second_start_does_nothing(declare):
    probe = declare("own:twice", n="u64")
    with trace.Session() as session:
        session.usdt("own:twice", path=probe.path).emit("n")
        session.start()
        session.start()
        probe(1)
        assert len(list(session.drain())) == 1


def test_after_the_start_nothing_can_be_added(declare):
    probe = declare("own:late", n="u64")
    with trace.Session() as session:
        source = session.usdt("own:late", path=probe.path).emit("n")
        session.start()
        for add in (source.emit, source.count, lambda: source.hist("n"), lambda: session.usdt("own:late", probe.path)):
            with pytest.raises(UsageError, match="has started"):
                add()


def test_after_the_close_nothing_can_be_done(declare):
    probe = declare("own:closed", n="u64")
    with trace.Session() as session:
        source = session.usdt("own:closed", path=probe.path)
    for use in (source.emit, session.start, lambda: next(iter(session))):
        with pytest.raises(UsageError, match="is closed"):
            use()
    session.close()


def test_a_session_needs_an_action(declare):
    probe = declare("own:idle", n="u64")
    with trace.Session() as session:
        session.usdt("own:idle", path=probe.path)
        with pytest.raises(UsageError, match="nothing to do"):
            session.start()
        assert not probe.enabled


def test_unknown_names_are_answered_with_the_known(declare):
    probe = declare("own:known", order_id="u64", customer="str")
    for use in (
        lambda source: source.emit("order"),
        lambda source: source.count("order"),
        lambda source: source.hist("order"),
        lambda source: source.where(trace.arg("order") > 1).count(),
    ):
        with trace.Session() as session:
            use(session.usdt("own:known", path=probe.path))
            with pytest.raises(UsageError, match="'order'") as raised:
                session.start()
        assert "order_id, customer" in raised.value.hint


def test_what_stands_in_the_wrong_place_is_said_at_once(declare):
    probe = declare("own:places", n="u64")
    with trace.Session() as session:
        source = session.usdt("own:places", path=Path(probe.path))
        for use in (source.emit, source.count, lambda wrong: source.sum("n", wrong)):
            with pytest.raises(UsageError, match="where a name is expected"):
                use(trace.arg("n") % 2)
        with pytest.raises(UsageError, match="cannot be used in an expression"):
            source.where("n > 2")
    with pytest.raises(UsageError, match="empty list of processes"):
        trace.Session(pid=[])


def test_a_process_that_does_not_exist(spawn):
    process = spawn(["true"])
    process.wait()
    with pytest.raises(NotFoundError, match=f"no process {process.pid}"):
        trace.Session(pid=[1, process.pid])


def test_a_thread_is_no_process():
    thread = threading.Thread(target=(ended := threading.Event()).wait)
    thread.start()
    with pytest.raises(NotFoundError, match=f"{thread.native_id} is a thread of process {os.getpid()}"):
        trace.Session(pid=thread.native_id)
    ended.set()
    thread.join()


def test_what_runs_no_program(spawn):
    ended = spawn(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # and stays a zombie
    with trace.Session(pid=ended.pid) as session, pytest.raises(NotFoundError, match="no program to search"):
        session.uprobe("c", "write")


@pytest.mark.parametrize("pid", [0, -1])
def test_a_number_that_is_no_process(pid):
    with pytest.raises(UsdtkitError, match=f"process {pid}"):
        trace.Session(pid=pid)


@pytest.mark.parametrize(
    "options", [{"ring_size": 5000}, {"ring_size": 2048}, {"string_size": 0}, {"string_size": 1 << 20}]
)
def test_sizes_that_cannot_be(options):
    with pytest.raises(UsageError):
        trace.Session(**options)


def test_a_probe_that_does_not_exist(stepper):
    target = stepper()
    with trace.Session(pid=target.pid) as session:
        with pytest.raises(NotFoundError, match="step:plain"):
            session.usdt("step:plan")


@pytest.mark.parametrize("start", [trace.uretprobe("c", "malloc"), trace.usdt("own:start")])
def test_what_needs_an_end_for_a_pair(start, declare):
    declare("own:start", n="u64")
    with trace.Session(pid=os.getpid()) as session:
        with pytest.raises(UsageError, match="needs its end"):
            session.pair(start)
