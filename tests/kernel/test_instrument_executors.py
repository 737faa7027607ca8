"""Calls of thread and process pools: each is submitted, begins and ends once, with its wait and its exception."""

import subprocess
import sys
from collections import Counter

import pytest
from pythons import environment, tree_for, versions

from usdtkit import trace

RUN = ["-m", "usdtkit.run", "--with", "executors"]
THIS = ".".join(map(str, sys.version_info[:3]))
NEWEST = max(versions(), key=lambda version: tuple(map(int, version.split(".")[:2])))

POOLS = """
import asyncio, functools, multiprocessing, os, sys, threading, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from usdtkit.instrument import watcher

def add(a, b):
    return a + b

def fails(number):
    raise KeyError(number)

def naps():
    time.sleep(0.05)

def work(pool):
    futures = [pool.submit(add, number, b=1) for number in range(2000 - 31)]
    futures += [pool.submit(functools.partial(fails, number)) for number in range(31)]
    assert sum(each.result() for each in futures[:-31]) == sum(range(1, 2000 - 31 + 1))
    assert {type(each.exception()).__name__ for each in futures[-31:]} == {"KeyError"}
    assert list(pool.map(add, range(14), range(14), chunksize=2)) == list(range(0, 28, 2))

async def main():
    loop = asyncio.get_running_loop()
    await asyncio.gather(*(loop.run_in_executor(None, add, 1, 2) for _ in range(97)))

if __name__ == "__main__":
    method = sys.argv[1]
    print("ready", flush=True)
    sys.stdin.readline()
    names = ["executors:call__submit", "executors:call__start", "executors:call__done"]
    while not watcher.traced(names):
        time.sleep(0.001)
    if method == "threads":
        with ThreadPoolExecutor(4) as pool:
            work(pool)
        asyncio.run(main())
        with ThreadPoolExecutor(1) as pool:
            waiting = [pool.submit(naps) for _ in range(3)]
            assert waiting[2].cancel()
            ended = []
            waiting[1].add_done_callback(lambda future: time.sleep(0.2))
        pids = [os.getpid()]
    else:
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
            work(pool)
            pids = [os.getpid(), *pool._processes]
            naps_of = [pool.submit(naps) for _ in range(6)]
    print("done", *pids, flush=True)
    sys.stdin.readline()
    while watcher.traced(names):
        time.sleep(0.001)
    from concurrent.futures import process, thread
    kept = [each for each in (thread._WorkItem.run, thread._WorkItem.__init__, process._CallItem.__init__)
        if hasattr(each, "__wrapped__")]
    assert not kept and "fn" not in vars(process._CallItem), kept
"""


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    return lambda version: tree_for(version, folder)


@pytest.mark.parametrize(
    ("method", "version"),
    [
        *((method, THIS) for method in ("threads", "fork", "spawn", "forkserver")),
        ("threads", NEWEST),
        ("spawn", NEWEST),
    ],
)
def test_every_call_of_a_pool(method, version, trees, spawn, wait_for_line, tmp_path):
    path, tree = trees(version)
    program = tmp_path / "pools.py"
    program.write_text(POOLS)
    process = spawn([path, *RUN, program, method], env=environment(tree), cwd=tmp_path)
    wait_for_line(process, "ready")
    # Workers are other processes, which begin later.
    with trace.Session(string_size=48) as session:
        submitted = session.usdt("executors:call__submit").count("pid", "pool", "function")
        started = session.usdt("executors:call__start").count("pid", "pool", "function")
        session.usdt("executors:call__done").emit("pid", "pool", "function", "wait_ns", "latency_ns", "error")
        session.start()
        process.stdin.write("\n")
        process.stdin.flush()
        pids = {int(pid) for pid in wait_for_line(process, "done", timeout=60).split()[1:]}
        events = [event for event in session.drain() if event.pid in pids]
        begun = Counter()
        for (pid, pool, function), count in started.read().items():
            begun[pool, function] += count if pid in pids else 0
        handed = {key[1:]: count for key, count in submitted.read().items() if key[0] == process.pid}
    pool = "thread" if method == "threads" else "process"
    naps = 3 if pool == "thread" else 6
    # `map` sends chunks of two to processes, and each call by itself to threads.
    mapped = 14 + 97 if pool == "thread" else 7
    expected = {(pool, "add"): 2000 - 31 + mapped, (pool, "fails"): 31, (pool, "naps"): naps}
    ends = Counter((event.pool, event.function, event.error) for event in events)
    assert handed == expected
    if pool == "thread":
        expected[pool, "naps"] = 2  # the third was cancelled
        slept = [event for event in events if event.function == "naps"]
        assert [event.wait_ns > 45e6 for event in slept] == [False, True]
        assert all(50e6 <= event.latency_ns < 190e6 for event in slept)  # without the callback of the future
    assert begun == expected
    assert ends == {(*key, "KeyError" if key[1] == "fails" else ""): count for key, count in expected.items()}
    assert all(event.wait_ns > 0 for event in events)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(20) == 0


INTERPRETERS = """
import math, sys, time
from concurrent.futures import InterpreterPoolExecutor
from usdtkit.instrument import watcher

if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    while not watcher.traced(["executors:call__submit", "executors:call__done"]):
        time.sleep(0.001)
    with InterpreterPoolExecutor(2) as pool:
        assert [pool.submit(math.gcd, 12, number).result() for number in range(97)][8] == 4
        assert type(pool.submit(math.sqrt, -1).exception()) is ValueError
    print("done", flush=True)
    sys.stdin.readline()
"""


def test_a_pool_of_interpreters(trees, spawn, wait_for_line, tmp_path):
    """Its calls are seen in the main interpreter; the others neither have probes nor say so."""
    path, tree = trees(NEWEST)
    program = tmp_path / "pools.py"
    program.write_text(INTERPRETERS)
    process = spawn([path, *RUN, program], env=environment(tree), cwd=tmp_path, stderr=subprocess.PIPE)
    wait_for_line(process, "ready")
    with trace.Session(pid=process.pid, string_size=48) as session:
        submitted = session.usdt("executors:call__submit").count("pool", "function")
        ended = session.usdt("executors:call__done").count("pool", "function", "error")
        session.start()
        process.stdin.write("\n")
        process.stdin.flush()
        wait_for_line(process, "done")
        assert submitted.read() == {("thread", "gcd"): 97, ("thread", "sqrt"): 1}
        assert ended.read() == {("thread", "gcd", ""): 97, ("thread", "sqrt", "ValueError"): 1}
    assert process.communicate("\n", timeout=20) == ("", "")
    assert process.returncode == 0
