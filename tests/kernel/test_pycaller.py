"""Which function of Python made a call, as a key, as a field, and by the option of the tools for such calls; and stacks
of a program in Python with the frames of one kind."""

import sys

import pytest
from commandline import end_of_tracing, go, json_lines, names, start_tracing

from usdtkit import trace
from usdtkit.trace import PythonCaller, pycaller

TIMES = 997
APP = f"""
import os, socket, threading

class Shop:
    def order(self):
        return os.getppid()
    def pay(self):
        return [os.getppid() for _ in (1,)]
    def look_up(self):
        return socket.getaddrinfo("127.0.0.1", 80)

def work(shop):
    for _ in range({TIMES}):
        shop.order()
        shop.pay()

print("ready", flush=True)
input()
shop = Shop()
threads = [threading.Thread(target=work, args=(shop,)) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for _ in range(97):
    shop.look_up()
"""
# In 3.12 and later a comprehension is no function of its own.
PAY = "Shop.pay" if sys.version_info >= (3, 12) else "Shop.pay.<locals>.<listcomp>"


@pytest.fixture
def app(tmp_path, ready):
    """(path, process) of a program in Python that waits to begin."""
    path = tmp_path / "pycaller_app.py"
    path.write_text(APP)
    return path, ready([sys.executable, path])


def line_of(path, text):
    return path.read_text().splitlines().index(text) + 1


def expected(path):
    order, pay = (line_of(path, f"        return {text}") for text in ("os.getppid()", "[os.getppid() for _ in (1,)]"))
    return {PythonCaller("Shop.order", str(path), order): 2 * TIMES, PythonCaller(PAY, str(path), pay): 2 * TIMES}


def test_a_key_and_a_field(app):
    path, process = app
    with trace.Session(pid=process.pid) as session:
        calls = session.uprobe("c", "getppid")
        counts = calls.count(called=pycaller)
        calls.emit("pycaller")
        session.start()
        process.communicate("go\n", timeout=60)
        events = list(session.drain())
        assert {key: count for (key,), count in counts.read().items()} == expected(path)
        assert {caller: sum(event.pycaller == caller for event in events) for caller in expected(path)} == expected(
            path
        )
        assert (len(events), session.summary().lost) == (4 * TIMES, 0)


def test_a_value_of_argdist(app, spawn):
    path, process = app
    tracer = start_tracing(
        spawn, "argdist", "-C", "p:c:getppid():pyframe:pycaller", "-p", process.pid, "-i", "60", "--json"
    )
    go(process)
    _, rows, _ = json_lines(end_of_tracing(tracer)[0])
    found = {PythonCaller(**row["key"]["pycaller"]): row["count"] for row in rows}
    assert found == expected(path)


def test_who_looks_names_up(app, spawn):
    """socket.getaddrinfo is a function of Python too, but of the standard library."""
    path, process = app
    tracer = start_tracing(spawn, "gethostlatency", "-p", process.pid, "--pycaller", "--json")
    go(process)
    _, rows, summary = json_lines(end_of_tracing(tracer)[0])
    line = line_of(path, '        return socket.getaddrinfo("127.0.0.1", 80)')
    assert [row["pycaller"] for row in rows] == [{"function": "Shop.look_up", "file": str(path), "line": line}] * 97
    assert summary["lost"] == 0


def folded(output):
    """Counts by the labels of folded lines, outermost first."""
    return {
        tuple(stack.split(";")): int(count)
        for stack, _, count in (line.rpartition(" ") for line in output.splitlines())
    }


def test_python_s_frames_alone_and_native_ones_alone(app, ready, spawn):
    path, process = app
    found = []
    for options in (["--python", "-f"], ["--native", "-f"], ["--json"]):
        tracer = start_tracing(spawn, "stackcount", "c:getppid", "-p", process.pid, *options)
        go(process)
        found.append(end_of_tracing(tracer)[0])
        process = ready([sys.executable, path])
    process.communicate("go\n", timeout=60)
    python, native = folded(found[0]), folded(found[1])
    order, pay = expected(path)
    called = f"work (pycaller_app.py:{line_of(path, '        shop.order()')})"
    assert sum(python.values()) == sum(native.values()) == 4 * TIMES
    assert sum(count for stack, count in python.items() if stack[-2:] == (called, str(order))) == 2 * TIMES
    assert sum(count for stack, count in python.items() if stack[-1] == str(pay)) == 2 * TIMES
    assert not any(".py:" in label for stack in native for label in stack)
    assert all("_PyEval_EvalFrameDefault" in stack and stack[-1] == "getppid" for stack in native)
    _, rows, summary = json_lines(found[2])
    for row in rows:
        kinds = [frame["kind"] for frame in row["stack"]]
        assert kinds[0] == "native" and "python" in kinds
        assert "_PyEval_EvalFrameDefault" not in names(row["stack"])
    assert (sum(row["count"] for row in rows), summary["cut_stacks"]) == (4 * TIMES, [])


def test_slow_calls(app, spawn):
    path, process = app
    tracer = start_tracing(spawn, "funcslower", "c:getppid", "-u", "0", "-p", process.pid, "--pycaller")
    go(process)
    output = end_of_tracing(tracer)[0]
    order = line_of(path, "        return os.getppid()")
    assert output.count(f" Shop.order (pycaller_app.py:{order})\n") == 2 * TIMES
