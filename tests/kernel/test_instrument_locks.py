"""Waits for locks, by each of the ways in which a program can wait: each fires once, with places in the program."""

import re
import subprocess
from collections import Counter

import pytest
from pythons import environment, tree_for, versions

from usdtkit import trace

pytestmark = pytest.mark.machine

# What the locks are and do; printed, so that the test can compare it with the same without probes.
SAME = r"""
import _thread, pickle, sys, threading, time, weakref
def same():
    plain = _thread.allocate_lock()
    class Holder:
        lock = threading.Lock
    for lock in (threading.Lock(), threading.RLock(), Holder().lock()):
        yield type(lock) is type(plain), type(lock) is _thread.RLock, weakref.ref(lock)() is lock
        yield [getattr(lock, name).__name__ for name in ("acquire", "release", "__enter__")]
        calls = [(), (False,), (False, 5), (True, -5), (True, 1e30), (1, -1), ("x", "y"), (1, 2, 3), (False, -1.0)]
        for arguments in calls:
            try:
                yield arguments, lock.acquire(*arguments)
                lock.release()
            except Exception as error:
                yield arguments, type(error).__name__, str(error)
        kind = type(lock)
        for call in (lambda: kind.acquire(), lambda: kind.acquire(5), lambda: lock.acquire(wrong=5),
                     lambda: lock.acquire(blocking=True, timeout=-1), lambda: lock.acquire(True, blocking=True),
                     lambda: kind.__enter__(5), lambda: pickle.dumps(lock), lambda: lock.release() or lock.release()):
            try:
                yield call()
            except Exception as error:
                yield type(error).__name__, str(error)
    if sys.version_info >= (3, 13):
        yield isinstance(plain, threading.Lock), isinstance(5, threading.Lock)
"""

WAITS = (
    SAME
    + r"""
import queue
from usdtkit.instrument import locks, watcher
before = threading.Lock()
locks.install()

lock = threading.Lock()  # made lock
recursive = threading.RLock()  # made recursive
condition = threading.Condition()  # made condition
plain = threading.Condition(threading.Lock())  # made plain
semaphore = threading.Semaphore()  # made semaphore
event = threading.Event()  # made event
orders = queue.Queue()  # made queue

print("ready", flush=True)
sys.stdin.readline()
while not watcher.traced(["locks:wait"]):
    time.sleep(0.001)
for each in same():
    print(each)

MAIN = f"/proc/self/task/{threading.main_thread().native_id}/syscall"
def blocked():
    "Where the main thread waits for a lock: the address in a call of futex without a time-out, which the GIL's have."
    with open(MAIN) as file:
        number, *arguments = file.read().split()
    return arguments[0] if number in ("202", "98") and int(arguments[3], 16) == 0 else ""
def until_blocked(before=""):
    "For several looks, because the main thread may also wait for a moment for a lock of the interpreter's."
    deadline, looks = time.monotonic() + (0.05 if before else 20), 0
    while looks < 5 and time.monotonic() < deadline:
        looks = 0 if blocked() in ("", before) else looks + 1
        time.sleep(0.001)
def held(lock):
    "A thread that holds the lock until the main thread waits for it."
    has = []
    def run():
        with lock:
            has.append(True)
            until_blocked()
    threading.Thread(target=run).start()
    while not has:
        time.sleep(0.001)

lock.acquire()
before.acquire()
for number in range(997):
    lock.acquire(True, 0.00001)  # waits lock False 997
    before.acquire(timeout=0.00001)
lock.release()
for number in range(5):
    held(lock)
    with lock:  # waits lock True 5
        pass
    held(recursive)
    with recursive:  # waits recursive True 5
        with recursive:
            recursive.acquire(timeout=5)
            recursive.release()
    held(recursive)
    recursive.acquire()  # waits recursive True 5
    recursive.release()
    held(condition._lock)
    with condition:  # waits condition True 5
        pass
    held(semaphore._cond._lock)
    semaphore.acquire()  # waits semaphore True 5
    semaphore.release()
    held(event._cond._lock)
    event.set()  # waits event True 5
    held(orders.mutex)
    orders.put(number)  # waits queue True 5
    assert orders.get() == number
    # To be notified is no wait for a lock; but who notified has it still.
    def notify():
        while plain._lock.locked() or not plain._waiters:
            time.sleep(0.001)
        with plain:
            before = blocked()
            plain.notify()
            until_blocked(before)
    with plain:
        threading.Thread(target=notify).start()
        plain.wait()  # waits plain True 5
assert event.wait() and not threading.Semaphore(0).acquire(timeout=0.001)

# A signal during a wait, whose handler raises; the lock is not held then.
import signal
def handler(*_):
    raise TimeoutError
signal.signal(signal.SIGALRM, handler)
lock.acquire()
signal.setitimer(signal.ITIMER_REAL, 0.01)
try:
    with lock:  # waits lock False 1
        pass
except TimeoutError:
    print("interrupted", lock.locked())
lock.release()
print("done", flush=True)
sys.stdin.readline()
while watcher.traced(["locks:wait"]):
    time.sleep(0.001)
methods = [method for kind in (type(lock), type(recursive)) for method in vars(kind).values()]
print([method for method in methods if "Wrapper" in str(type(method))])
for each in same():
    print(each)
del lock, recursive, condition, plain, semaphore, event, orders
import gc
gc.collect()
print(len([one for one in locks._made if one().__class__ and "<string>" in one.place]))
"""
)


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    return lambda version: tree_for(version, folder)


def places(text, path):
    """(made, place, acquired) → how often, as the comments of the program say."""
    lines = list(enumerate(text.splitlines(), 1))
    made = {name: f"{path}:{at}" for at, line in lines for name in re.findall(r"# made (\w+)", line)}
    expected = Counter()
    for at, line in lines:
        _, _, said = line.partition("# waits ")
        for name, acquired, times in re.findall(r"(\w+) (True|False) (\d+)", said):
            expected[made[name], f"{path}:{at}", acquired == "True"] += int(times)
    return expected


@pytest.mark.parametrize("version", versions())
def test_each_wait_fires_once_and_locks_stay_what_they_are(version, trees, spawn, wait_for_line):
    path, tree = trees(version)
    bare = [path, "-c", SAME + "\nfor each in same(): print(each)"]
    same = subprocess.run(bare, capture_output=True, text=True, check=True).stdout
    assert same.count("\n") > 50
    process = spawn([path, "-c", WAITS], env=environment(tree), cwd="/", stderr=subprocess.PIPE)
    wait_for_line(process, "ready")
    with trace.Session(pid=process.pid, string_size=64) as session:
        waits = session.usdt("locks:wait").count("made", "place", "acquired")
        session.start()
        process.stdin.write("\n")
        process.stdin.flush()
        while_traced = []
        while (line := process.stdout.readline()) and line != "done\n":
            while_traced.append(line)
        assert line, process.stderr.read()
        seen = waits.read()
        assert session.summary().lost == 0
    process.stdin.write("\n")
    process.stdin.close()
    after = process.stdout.read()
    assert (process.wait(20), process.stderr.read()) == (0, "")
    assert "".join(while_traced) == f"{same}interrupted True\n"
    assert after == f"[]\n{same}0\n"
    expected = places(WAITS, "<string>")
    made = {made for made, _, _ in expected}  # and not those inside a Thread, which is waited for when it starts
    assert {key: count for key, count in seen.items() if key[0] in made} == expected
