"""A clock as a source: samples are CPU time, of the right threads, in the right function."""

import resource
from collections import Counter
from pathlib import Path

import pytest

from usdtkit import trace
from usdtkit.errors import NotFoundError, UsageError, UsdtkitError
from usdtkit.model import Clock
from usdtkit.trace import clock

HZ = 999


@pytest.fixture
def burn(compile_c, ready):
    """burn(threads, milliseconds) -> the running program, which waits for a line."""
    path = compile_c("burn.c", "-O2", "-pthread")
    return lambda threads=2, milliseconds=500: ready([path, threads, milliseconds])


def results(process):
    """Let it work: the CPU time of each of its threads in nanoseconds, and the number of its child."""
    lines = [line.split() for line in process.communicate("go\n", timeout=60)[0].splitlines()]
    assert process.returncode == 0
    return {int(words[1]): int(words[3]) for words in lines if words[0] == "thread"}, int(lines[-1][1])


def is_cpu_time(samples, used_ns):
    """Whether so many samples fit the CPU time.

    The last period of a clock is not complete (one sample), and the program reads its thread's CPU time by system
    calls, which are in the kernel and not sampled (less than 1 %). A hypervisor that takes the processor away delays
    timers, and some of that is counted as CPU time: so 5 %.
    """
    return abs(samples - used_ns / 1e9 * HZ) <= 1 + 0.05 * used_ns / 1e9 * HZ


def test_threads_of_a_process_are_sampled_for_their_cpu_time(burn):
    process = burn()
    with trace.Session(pid=process.pid) as session:
        by_thread = session.source(clock(HZ)).count("pid", "tid", "comm")
        session.start()
        used, _ = results(process)  # the last thread starts after the session, and the child is another process
        counts = by_thread.read()
        summary = session.summary()
    burners = {tid: count for (pid, tid, comm), count in counts.items() if tid in used}
    assert {(pid, comm) for pid, _, comm in counts} == {(process.pid, Path(process.args[0]).name[:15])}
    assert len(used) == 3
    assert set(burners) == set(used)
    assert all(is_cpu_time(burners[tid], used[tid]) for tid in used), (burners, used)
    assert summary.hits == sum(counts.values())
    assert sum(counts.values()) - sum(burners.values()) <= 3  # of the thread that waits for the others


def test_every_processor_is_sampled_without_a_process(burn):
    process = burn(1)
    with trace.Session() as session:
        by_process = session.source(clock(HZ)).where(trace.comm == Path(process.args[0]).name[:15]).count("pid")
        processors = session.source(clock(HZ)).count("cpu")
        session.start()
        used, child = results(process)
        counts = by_process.read()
        assert sum(processors.read().values()) >= sum(counts.values())
    assert is_cpu_time(counts[process.pid,], sum(used.values()))
    assert is_cpu_time(counts[child,], 500_000_000)


def test_stacks_and_addresses_name_the_function_that_burns(burn):
    process = burn(1)
    with trace.Session(pid=process.pid) as session:
        samples = session.source(clock(HZ))
        stacks = samples.count("ustack")
        samples.emit("pid", "tid", "ip")
        session.start()
        used, _ = results(process)
        events = list(session.drain())
        names = Counter(session.symbol(event.pid, event.ip).name for event in events)
        chains = Counter()
        for (stack,), count in stacks.read().items():
            chains[tuple(frame.name for frame in stack)[:2]] += count
        assert session.summary().lost == session.summary().no_stack == 0
    assert {event.probe for event in events} == {f"clock:{HZ}"}
    assert names["burn"] >= 0.95 * len(events)
    assert chains["burn", "run"] >= 0.95 * len(events)
    assert all(is_cpu_time(sum(event.tid == tid for event in events), used[tid]) for tid in used)


def test_a_command_is_sampled_from_its_beginning(compile_c):
    path = compile_c("burn.c", "-O2", "-pthread")
    with trace.Session(command=[str(path), "1", "200"]) as session:
        by_process = session.source(clock(HZ)).count("pid")
        for _ in session:
            pass
        assert session.command_status == 0
        (pid,) = session.pids
        counts = {key: count for (key,), count in by_process.read().items()}
    assert is_cpu_time(counts.pop(pid), 400_000_000)
    [count] = counts.values()  # of the child
    assert is_cpu_time(count, 200_000_000)


def test_a_clock_beside_probes(stepper):
    target = stepper()
    with trace.Session(pid=target.pid) as session:
        hits = session.usdt("step:plain").count()
        probes = session.source(clock(HZ)).count("probe")
        session.start()
        target.fire(9973)
        assert hits.read() == {(): 9973}
        assert set(probes.read()) <= {(f"clock:{HZ}",)}


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (trace.arg("order_id"), "has no arguments"),
        (trace.arg(1), "has no arguments"),
        (trace.retval, "only a function's return"),
        (trace.latency, "only a pair"),
        (trace.caller, "was called from is not known"),
        (trace.goid, "only functions of Go"),
    ],
)
def test_what_a_clock_does_not_have(value, complaint):
    with trace.Session() as session:
        session.source(clock()).emit(value=value)
        with pytest.raises(UsageError, match=complaint):
            session.program()


def test_a_clock_is_no_part_of_a_pair(stepper):
    target = stepper()
    with trace.Session(pid=target.pid) as session:
        probe = trace.usdt("step:plain", target.path)
        for start, end in ((clock(), probe), (probe, clock()), (clock(), None)):
            with pytest.raises(UsageError, match="clock:99"):
                session.pair(start, end)


@pytest.mark.parametrize("frequency_hz", [0, -1, 100_001])
def test_frequencies_that_no_kernel_has(frequency_hz):
    with pytest.raises(UsageError, match=f"a clock of {frequency_hz} Hz"):
        clock(frequency_hz)


def test_a_frequency_that_this_kernel_does_not_allow(stepper):
    with trace.Session(pid=stepper().pid) as session:
        session.source(Clock(100_000_000)).count()
        with pytest.raises(UsageError, match="at most"):
            session.start()


def test_a_process_that_ends_before_the_start(stepper):
    target = stepper()
    with trace.Session(pid=target.pid) as session:
        session.source(clock()).count()
        target.finish()
        with pytest.raises(NotFoundError, match=str(target.pid)):
            session.start()


def test_a_process_with_more_threads_than_open_files(burn):
    process = burn(300, 0)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with trace.Session(pid=process.pid) as session:
        session.source(clock()).count()
        resource.setrlimit(resource.RLIMIT_NOFILE, (250, limits[1]))
        try:
            with pytest.raises(UsdtkitError, match="each thread of the processes takes an open file"):
                session.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
