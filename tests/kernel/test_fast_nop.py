"""Five-byte sites, which the kernel makes calls of: right values, and forked children that live."""

import os
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from usdtkit import _probe, trace

# Does what each line of its input says, and has what its tests need.
SERVICE = """
import ctypes, multiprocessing, os, sys
sys.path.append({tests!r})
from stubs import site_of
from usdtkit import Provider
shop = Provider("shop", nop="fast")
order = shop.probe("order", id="u64", name="str")
many = shop.probe("many", {{f"a{{n}}": "u64" for n in range(12)}})
shop.load()

def first_byte():
    return ctypes.string_at(site_of(order), 1)[0]

def fork_and_fire(children, fires):
    "Children, a few at a time, that fire and end; whether all did."
    good = 0
    for at in range(children):
        child = os.fork()
        if child == 0:
            for number in range(fires):
                order(number, "child")
            os._exit(0)
        order(0, "parent")
        good += os.waitpid(child, 0)[1] == 0
    return good

def fire(fires):
    for number in range(fires):
        order(number, "pool")
    return os.getpid()

print(shop.files[0], flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


@pytest.fixture
def service(spawn, tmp_path):
    """path of the file, and run(line), which gives what the line prints."""
    environment = os.environ | {"USDTKIT_DIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    script = SERVICE.format(tests=str(Path(__file__).parents[1]))
    process = spawn([sys.executable, "-c", script], env=environment)
    path = process.stdout.readline().strip()

    def run(line):
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        printed = []
        while (text := process.stdout.readline()) != "done\n":
            assert text, "the service has died"
            printed.append(text.strip())
        return " ".join(printed)

    return path, run


@pytest.fixture
def traced(service):
    """A session that counts, attached, and its counts()."""
    path, run = service
    with trace.Session() as session:
        counts = session.usdt("shop:order", path).count("name")
        session.start()
        run("fire(100)")
        yield lambda: {key[0]: value for key, value in counts.read().items()}


def optimised(run):
    return run("print(first_byte())") == str(0xE8)


@contextmanager
def passing_tracers(path):
    """Sessions that come and go, one after the other; the list grows by what each has counted."""
    ended, rounds = threading.Event(), []

    def come_and_go():
        while not ended.is_set():
            with trace.Session() as session:
                session.usdt("shop:order", path).count()
                session.start()
                rounds.append(session.summary().hits)

    tracer = threading.Thread(target=come_and_go)
    tracer.start()
    try:
        yield rounds
    finally:
        ended.set()
        tracer.join()


def test_the_kernel_is_asked_what_it_does(service, traced):
    _, run = service
    assert optimised(run) is _probe.optimises()


def test_children_of_an_optimised_site_live_and_are_traced(service, traced):
    _, run = service
    assert run("print(fork_and_fire(200, 7))") == "200"
    assert traced() == {"pool": 100, "parent": 200, "child": 1400}
    assert optimised(run) is _probe.optimises()


def test_children_when_the_tracer_has_gone(service):
    path, run = service
    with trace.Session() as session:
        session.usdt("shop:order", path).count()
        session.start()
        run("fire(100)")
    assert run("print(fork_and_fire(200, 7), order.enabled)") == "200 False"


def test_grandchildren_and_multiprocessing(service, traced):
    _, run = service
    run("pool = multiprocessing.get_context('fork').Pool(3)")
    run("print(len(pool.map_async(fire, [997] * 3, 1).get(60)))")
    run("pool.close(); pool.join()")
    run("child = os.fork(); child or os._exit(fork_and_fire(13, 7) != 13)")
    assert run("print(os.waitpid(child, 0)[1])") == "0"
    assert traced() == {"pool": 100 + 3 * 997, "parent": 13, "child": 13 * 7}


def test_children_whose_file_is_gone_live_untraced(service, traced):
    path, run = service
    Path(path).rename(f"{path}.gone")
    assert run("print(fork_and_fire(13, 7))") == "13"
    Path(path).write_text("another file of this name")
    assert run("print(fork_and_fire(13, 7))") == "13"
    assert traced() == {"pool": 100, "parent": 26}


def test_forks_while_tracers_come_and_go(service, traced):
    path, run = service
    with passing_tracers(path) as rounds:
        assert run("print(fork_and_fire(200, 97))") == "200"
    assert len(rounds) > 3
    assert traced() == {"pool": 100, "parent": 200, "child": 200 * 97}


def test_only_passing_tracers_while_it_forks(service):
    path, run = service
    with passing_tracers(path):
        assert run("print(fork_and_fire(200, 97))") == "200"
    assert run("print(order.enabled, first_byte() == 0x0f)") == "False True"


def test_twelve_values_at_an_optimised_site(service):
    path, run = service
    with trace.Session() as session:
        session.usdt("shop:many", path).emit()
        session.start()
        run("for call in range(997): many(*[call * 100 + n for n in range(12)])")
        events = list(session.drain())
    assert [tuple(getattr(event, f"a{n}") for n in range(12)) for event in events] == [
        tuple(call * 100 + n for n in range(12)) for call in range(997)
    ]
