"""Firing while everything else happens: threads, tracers that come and go, loads, signals, interpreters."""

import signal
import subprocess
import sys
import threading

import pytest
from stubs import forget_providers

from usdtkit import Provider, trace

THREADS, ROUNDS = 10, 100
FIRES = 1_000_000


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    forget_providers(monkeypatch)
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))


FIRING = """
import sys, threading
from usdtkit import Provider
shop = Provider("shop", nop=sys.argv[1])
order = shop.probe("order", thread="u64", call="u64", name="str")
shop.load()
print(shop.files[0], flush=True)
input()
ended, fired = threading.Event(), {}

def fire(thread):
    # Until the tracers have been here, and at least so often.
    call = 0
    while call < int(sys.argv[2]) or not ended.is_set():
        order(thread, call, "right")
        call += 1
    fired[thread] = call

threads = [threading.Thread(target=fire, args=[number]) for number in range(int(sys.argv[3]))]
for thread in threads:
    thread.start()
input()
ended.set()
for thread in threads:
    thread.join()
print(*fired.values(), flush=True)
input()
print(order.enabled, flush=True)
"""


@pytest.mark.parametrize("nop", ["safe", "fast"])
def test_ten_threads_while_a_tracer_comes_and_goes_a_hundred_times(spawn, nop):
    process = spawn([sys.executable, "-c", FIRING, nop, str(FIRES), str(THREADS)])
    path = process.stdout.readline().strip()

    def tell():
        process.stdin.write("\n")
        process.stdin.flush()

    with trace.Session() as steady:
        counts = steady.usdt("shop:order", path).count("thread", "name")
        steady.start()
        tell()
        passing = 0
        for _ in range(ROUNDS):
            with trace.Session() as session:
                session.usdt("shop:order", path).count()
                session.start()
                session.detach()
                passing += session.summary().hits
        tell()
        fired = list(map(int, process.stdout.readline().split()))
        assert len(fired) == THREADS and min(fired) >= FIRES
        assert sum(counts.read().values()) == sum(fired)
        assert sorted(counts.read().values()) == sorted(fired)
        assert {name for _, name in counts.read()} == {"right"}
    assert passing > 0
    tell()
    assert process.stdout.readline() == "False\n"


def test_probes_declared_and_loaded_while_others_fire():
    shop = Provider("shop")
    order = shop.probe("order", id="u64")
    shop.load()
    ended = threading.Event()
    with trace.Session() as session:
        counts = session.usdt("shop:order", str(shop.files[0])).count()
        session.start()
        fired = []

        def fire():
            number = 0
            while not ended.is_set():
                order(number)
                number += 1
            fired.append(number)

        threads = [threading.Thread(target=fire) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(50):
            shop.probe(f"later_{number}", id="u64")(1)
        ended.set()
        for thread in threads:
            thread.join()
        assert sum(counts.read().values()) == sum(fired)
    assert len(shop.files) == 51


def test_a_signal_handler_fires_too():
    shop = Provider("shop")
    order, caught = shop.probe("order", id="u64"), shop.probe("caught", number="u64")
    shop.load()
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: (caught(len(seen)), seen.append(1)))
    try:
        with trace.Session() as session:
            counts = [session.usdt(f"shop:{name}", str(shop.files[0])).count() for name in ("order", "caught")]
            session.start()
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            number = 0
            while len(seen) < 97:
                order(number)
                number += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            # A last one may be under way.
            order(number)
            counted = [sum(each.read().values()) for each in counts]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert counted == [number + 1, len(seen)]


INTERPRETERS = """
import sys, threading
try:
    import _interpreters as interpreters
    run = lambda each, text: interpreters.run_string(each, text)
except ImportError:
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        import _testcapi
        sys.exit(_testcapi.run_in_subinterp("pass"))
    run = lambda each, text: interpreters.run_string(each, text)

DECLARE = '''
import sys
sys.path[:] = {path!r}
from usdtkit import Provider
shop = Provider("shop", nop={nop!r})
order = shop.probe("order", id="u64", name="str")
pay = shop.define_span("pay")
shop.load()
print(shop.files[0], flush=True)
'''.format(path=sys.path, nop=sys.argv[1])
FIRE = '''
for number in range(997):
    with pay():
        order(number, 'ada')
'''
exec(DECLARE)
input()
each = [interpreters.create() for _ in range(3)]
for one in each:
    run(one, DECLARE)
threads = [threading.Thread(target=run, args=(one, FIRE)) for one in each]
for thread in threads:
    thread.start()
exec(FIRE)
for thread in threads:
    thread.join()
interpreters.destroy(each[0])
exec(FIRE)
if sys.version_info >= (3, 14):
    for one in each[1:]:
        interpreters.destroy(one)  # it warns of those that remain
"""


@pytest.mark.parametrize("nop", ["safe", "fast"])
def test_interpreters_of_one_process_share_the_file(spawn, nop):
    process = spawn([sys.executable, "-c", INTERPRETERS, nop], stderr=subprocess.STDOUT)
    path = process.stdout.readline().strip()
    with trace.Session() as session:
        counts = session.usdt("shop:order", path).count()
        spans = [session.usdt(f"shop:pay__{end}", path).count("span") for end in ("start", "done")]
        session.start()
        output = process.communicate("\n", timeout=60)[0]
        assert process.returncode == 0, output
        assert set(output.split()) == {path}
        assert sum(counts.read().values()) == 5 * 997
        begun, ended = (each.read() for each in spans)
        assert begun == ended and len(begun) == 5 * 997 and set(begun.values()) == {1}


def test_firing_while_the_interpreter_ends(spawn):
    script = """
import atexit, sys, threading
from usdtkit import Provider
shop = Provider("shop")
order = shop.probe("order", id="u64")
shop.load()
print(shop.files[0], flush=True)
input()
def fire():
    while True:
        order(1)
for _ in range(4):
    threading.Thread(target=fire, daemon=True).start()
class Last:
    def __del__(self, order=order):
        order(2)
kept = Last()
atexit.register(order, 3)
while not order.enabled:
    pass
"""
    for _ in range(5):
        process = spawn([sys.executable, "-c", script], stderr=subprocess.STDOUT)
        path = process.stdout.readline().strip()
        with trace.Session() as session:
            counts = session.usdt("shop:order", path).count("id")
            session.start()
            output = process.communicate("\n", timeout=60)[0]
            seen = counts.read()
        assert (process.returncode, output) == (0, "")
        assert seen[(3,)] == 1
