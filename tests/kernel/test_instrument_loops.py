"""Event loops of uvloop and asyncio: every task and callback is counted, and whoever blocks the loop is named."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import unix_connection
from pythons import environment, tree_for, versions

from usdtkit import trace

ROOT = Path(__file__).parents[2]
RUN = ["-m", "usdtkit.run", "--with", "asyncio"]
REQUESTS, CLIENTS = 2000, 8
SERVED = "RequestResponseCycle.run_asgi"
TASKS = ("task__create", "task__step", "task__done", "callback", "blocked", "lag")

WEB = """
import asyncio, json, time
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from usdtkit.instrument import watcher

def looks_up_prices():
    time.sleep(0.08)

def adds_up():
    end = time.monotonic() + 0.08
    while time.monotonic() < end:
        pass

async def order(request):
    kind = request.path_params["kind"]
    if kind == "waits":
        looks_up_prices()
    elif kind == "spins":
        adds_up()
    return PlainTextResponse(kind, 500 if kind == "fails" else 200)

async def hooks(request):
    names = {f"asyncio:{name}" for name in request.query_params["names"].split(",")}
    return PlainTextResponse(json.dumps([type(asyncio.get_running_loop()).__module__, names <= watcher.traced(names)]))

app = Starlette(routes=[Route("/order/{kind}", order), Route("/hooks", hooks)])
"""


@pytest.fixture
def web(spawn, tmp_path, wait_for_line):
    """web(loop) -> (process, address of its socket, module of its event loop) of a uvicorn with ready-made probes."""

    def start(loop):
        (tmp_path / "web.py").write_text(WEB)
        address = tmp_path / "socket"
        serve = [*RUN, "-m", "uvicorn", "--uds", str(address), "--no-access-log", "--loop", loop, "web:app"]
        variables = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        process = spawn([sys.executable, *serve], env=variables, cwd=tmp_path, stderr=subprocess.STDOUT)
        wait_for_line(process, "Uvicorn running", timeout=60)
        return process, address

    return start


def get(connection, path):
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read().decode()


def until_hooked(address, *names):
    """Wait until the server has its hooks set, and return the module of its loop."""
    connection, deadline = unix_connection(address), time.monotonic() + 20
    while time.monotonic() < deadline:
        module, hooked = json.loads(get(connection, f"/hooks?names={','.join(names)}")[1])
        if hooked:
            connection.close()
            return module
        time.sleep(0.01)
    pytest.fail("no hooks")


@pytest.mark.parametrize(("loop", "module"), [("auto", "uvloop"), ("asyncio", "asyncio.unix_events")])
def test_tasks_and_blocks_of_uvicorn(web, loop, module):
    """2,000 requests by eight connections that stay open, of which some block the loop."""
    process, address = web(loop)
    kinds = ["waits"] * 13 + ["spins"] * 7 + ["fails"] * 31
    kinds = [kinds[number // 37] if number % 37 == 5 and number // 37 < 51 else "quick" for number in range(REQUESTS)]

    def client(number):
        connection = unix_connection(address)
        statuses = Counter(get(connection, f"/order/{kind}")[0] for kind in kinds[number::CLIENTS])
        connection.close()
        return statuses

    with trace.Session(pid=process.pid, string_size=200) as session:
        created, ended = (session.usdt(f"asyncio:task__{name}").count("coroutine") for name in ("create", "done"))
        blocked = session.usdt("asyncio:blocked")
        blocked.emit("name", "latency_ns", "function", "file", "line", "stack")
        session.start()
        assert until_hooked(address, "task__create", "task__done", "blocked") == module
        before = created.read()[(SERVED,)]
        with ThreadPoolExecutor(CLIENTS) as clients:
            statuses = sum(clients.map(client, range(CLIENTS)), Counter())
        assert statuses == {200: REQUESTS - 31, 500: 31}
        assert created.read()[(SERVED,)] - before == REQUESTS
        events = list(session.drain())
        # A task ends after its client has had its answer.
        deadline = time.monotonic() + 20
        while ended.read()[(SERVED,)] - before < REQUESTS and time.monotonic() < deadline:
            time.sleep(0.01)
        assert ended.read()[(SERVED,)] - before == REQUESTS
        assert session.summary().lost == 0
    ours = [event for event in events if event.function in ("looks_up_prices", "adds_up")]
    assert Counter((event.function, event.name) for event in ours) == {
        ("looks_up_prices", SERVED): 13,
        ("adds_up", SERVED): 7,
    }
    for event in ours:
        if event.function == "looks_up_prices":
            assert 80e6 <= event.latency_ns < 2e9 and event.file.endswith("/web.py") and event.line == 9
            assert event.stack.startswith("looks_up_prices (web.py:9) < order (web.py:19) < ")


def test_the_recipe_names_who_blocks_uvicorn(web):
    """The command of docs/recipes.md, as it stands there."""
    process, address = web("auto")
    text = (ROOT / "docs" / "recipes.md").read_text()
    command = re.search(r"^usdtkit (trace -p PID 'u::asyncio:blocked .*)$", text, re.M)[1]
    command = command.replace("PID", str(process.pid))
    tracer = subprocess.Popen(
        f"exec {sys.executable} -m usdtkit {command}",
        shell=True, text=True, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        assert until_hooked(address, "blocked") == "uvloop"
        for kind in ("quick", "waits", "quick"):
            assert get(unix_connection(address), f"/order/{kind}")[0] == 200
        lines = [tracer.stdout.readline() for _ in range(2)]
    finally:
        tracer.terminate()
        tracer.communicate(timeout=20)
    assert re.search(r" \d+ ms in looks_up_prices \(.*/web.py:9\), task RequestResponseCycle.run_asgi", lines[1]), lines


# Every way by which a loop calls a program's code, and each blocks; prints the type of its loop.
CALLBACKS = """
import asyncio, functools, os, sys, threading, time
from usdtkit.instrument import watcher
if sys.argv[1] == "uvloop":
    import uvloop
new_loop = uvloop.new_event_loop if sys.argv[1] == "uvloop" else asyncio.new_event_loop
wanted = {f"asyncio:{name}" for name in sys.argv[2:]}

def slow(*args):
    time.sleep(0.08)

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        slow()
        self.transport.write(data)

class Quicker(Echo):
    def data_received(self, data):
        super().data_received(data)

async def echo(server):
    reader, writer = await asyncio.open_unix_connection(server)
    for _ in range(5):
        writer.write(b"x")
        assert await reader.read(1) == b"x"
    writer.close()
    await writer.wait_closed()

async def step():
    await asyncio.sleep(0)
    await asyncio.sleep(0)

async def fails():
    raise ValueError

async def blocks():
    slow()

async def cancelled():
    await asyncio.sleep(60)

async def main():
    loop = asyncio.get_running_loop()
    # What is registered before anybody traces.
    readable, writable = os.pipe()
    read = asyncio.Event()
    def reads():
        os.read(readable, 1)
        slow()
        read.set()
    loop.add_reader(readable, reads)
    servers = [await loop.create_unix_server(kind, kind.__name__) for kind in (Echo, Quicker)]
    early, early_writer = await asyncio.open_unix_connection("Echo")
    early_writer.write(b"x")
    assert await early.read(1) == b"x"
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    while wanted and not wanted <= watcher.traced(wanted):
        await asyncio.sleep(0.001)

    await asyncio.gather(*(step() for _ in range(997)))
    await asyncio.gather(fails(), blocks(), return_exceptions=True)
    task = asyncio.ensure_future(cancelled())
    loop.call_soon(task.cancel)
    await asyncio.wait([task])
    loop.call_soon(slow)
    loop.call_soon(functools.partial(slow, 1))
    loop.call_later(0.01, slow)
    loop.call_at(loop.time() + 0.01, slow)
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(slow,))
    thread.start()
    await asyncio.sleep(0.6)
    thread.join()
    os.write(writable, b"x")
    await read.wait()
    loop.remove_reader(readable)
    early_writer.write(b"x")
    assert await early.read(1) == b"x"
    early_writer.close()
    await echo("Echo")
    await echo("Quicker")
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
        await asyncio.gather(*[loop.create_task(eager()) for _ in range(97)], *[quick() for _ in range(31)])
        loop.set_task_factory(None)
    if sys.version_info >= (3, 11):
        async with asyncio.TaskGroup() as group:
            for _ in range(13):
                group.create_task(grouped())
    for server in servers:
        server.close()
    print("done", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    while wanted and watcher.traced(wanted):
        await asyncio.sleep(0.001)
    kept = [name for kind in (type(loop), asyncio.Handle) for name in ("create_task", "call_soon", "call_later", "_run")
        if hasattr(getattr(kind, name, None), "__wrapped__")]
    assert not kept, kept

async def eager():
    await asyncio.sleep(0)

async def quick():
    pass

async def grouped():
    await asyncio.sleep(0)

loop = new_loop()
asyncio.set_event_loop(loop)
loop.run_until_complete(main())
loop.close()
print(type(loop).__module__, flush=True)
"""


def version_of(version):
    return tuple(map(int, version.split(".")))[:2]


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    return lambda version: tree_for(version, folder)


# uvloop is installed for the Python that runs the tests. The newest one has eager tasks.
THIS = ".".join(map(str, sys.version_info[:3]))
NEWEST = max(versions(), key=version_of)


@pytest.mark.parametrize(("loop", "version"), [("uvloop", THIS), ("asyncio", THIS), ("asyncio", NEWEST)])
def test_everything_that_a_loop_calls(loop, version, trees, spawn, wait_for_line, tmp_path):
    path, tree = trees(version)
    process = spawn([path, *RUN, "-c", CALLBACKS, loop, *TASKS], env=environment(tree), cwd=tmp_path)
    wait_for_line(process, "ready")
    with trace.Session(pid=process.pid, string_size=64) as session:
        created, steps = (session.usdt(f"asyncio:task__{name}").count("coroutine") for name in ("create", "step"))
        ended = session.usdt("asyncio:task__done").count("coroutine", "error")
        slow = session.usdt("asyncio:callback").where(trace.arg("latency_ns") > trace.ms(75)).count("name")
        blocked = session.usdt("asyncio:blocked").where(trace.arg("latency_ns") > trace.ms(75)).count("function")
        lags = session.usdt("asyncio:lag").count()
        session.start()
        process.stdin.write("\n")
        process.stdin.flush()
        wait_for_line(process, "done", timeout=60)
        tasks = {name: count for (name,), count in created.read().items()}
        counted = {name: count for (name,), count in steps.read().items()}
        ends, stuck = ended.read(), slow.read()
        functions = blocked.read()
        assert sum(lags.read().values()) >= 3
    new = {"step": (997, 3), "fails": (1, 1), "blocks": (1, 1), "cancelled": (1, 2)}
    new |= {"eager": (97, 2), "quick": (31, 1)} if version_of(version) >= (3, 12) else {}
    new |= {"grouped": (13, 2)} if version_of(version) >= (3, 11) else {}
    assert {name: tasks[name] for name in new} == {name: count for name, (count, _) in new.items()}
    assert {name: counted.get(name, 0) for name in new} == {name: count * each for name, (count, each) in new.items()}
    assert (ends["fails", "ValueError"], ends["cancelled", "CancelledError"], ends["step", ""]) == (1, 1, 997)
    name = "{}.data_received" if loop == "uvloop" else "_SelectorSocketTransport._read_ready ({})"
    expected = {
        ("blocks",): 1,
        ("slow",): 5,
        ("main.<locals>.reads",): 1,
        (name.format("Echo"),): 6,
        (name.format("Quicker"),): 5,
    }
    # On a busy machine others are slow too, such as the step that creates a thousand tasks.
    assert {each: stuck.get(each) for each in expected} == expected
    assert functions[("slow",)] == sum(expected.values())
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(20) == 0


# What is wrong or odd about callbacks, and what uvloop says of it.
STRANGE = """
import asyncio, functools, os, re, signal, socket, sys
import uvloop
from usdtkit.instrument import watcher

class Strange:
    def __getattr__(self, name):
        raise SystemExit("asked for " + name)
    def __call__(self, *args):
        raise ValueError("strange")
    def __repr__(self):
        return "<strange>"

class Method:
    def fails(self, *args):
        raise ValueError("method")

def fails(*args):
    raise ValueError("function")

class Protocol(asyncio.Protocol):
    def data_received(self, data):
        raise ValueError("protocol")
    def connection_lost(self, error):
        print("lost", type(error).__name__, flush=True)

async def coroutine():
    pass

def tried(call, *args):
    try:
        call(*args)
    except BaseException as error:
        print(type(error).__name__, re.sub("0x[0-9a-f]+", "", str(error)))

async def main():
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    while sys.argv[1] == "traced" and not watcher.traced(["asyncio:callback"]):
        await asyncio.sleep(0.001)
    def told(loop, context):
        error, message = context["exception"], context.get("message", "none")
        print(re.sub("0x[0-9a-f]+", "", message), repr(error))
        if "strange" not in message:  # a handle asks its callback for its name
            print(re.sub("0x[0-9a-f]+", "", repr(context.get("handle"))))
    loop.set_exception_handler(told)
    for callback in (fails, Method().fails, functools.partial(fails, 1), Strange(), print):
        loop.call_soon(callback)
        await asyncio.sleep(0)
        loop.call_later(0.001, callback, 1)
        await asyncio.sleep(0.01)
    handle = loop.call_soon(fails)
    handle.cancel()
    print(handle.cancelled(), re.sub("0x[0-9a-f]+", "", repr(handle)))
    tried(loop.call_soon)
    tried(loop.call_later, "x", fails)
    tried(loop.call_later, float("nan"), fails)
    tried(loop.call_later, 1)
    tried(loop.call_later, None, None)
    tried(loop.call_soon, None)
    await asyncio.sleep(0)
    tried(loop.add_reader, 999, fails)
    tried(loop.add_signal_handler, signal.SIGUSR1, coroutine)
    tried(loop.create_task, 5)
    tried(loop.create_task)
    await loop.create_task(coro=coroutine())
    class Odd:
        def set_name(self, name):
            pass
        def __await__(self):
            return iter(())
    loop.set_task_factory(lambda loop, coroutine, **more: (coroutine.close(), Odd())[1])
    print(type(loop.create_task(coroutine())).__name__)
    loop.set_task_factory(None)
    server = await loop.create_server(Protocol, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"x")
    print(await reader.read(1))
    writer.close()
    server.close()
    tried(Protocol().data_received)
    tried(Protocol.data_received, 1)

uvloop.run(main())
"""


def test_callbacks_of_uvloop_are_as_strange_when_they_are_traced(spawn, wait_for_line):
    def start(how):
        process = spawn([sys.executable, *RUN, "-c", STRANGE, how], stderr=subprocess.STDOUT)
        wait_for_line(process, "ready")
        return process

    def finish(process):
        output, _ = process.communicate("\n", timeout=60)
        assert process.returncode == 0, output
        return output

    untraced = finish(start("untraced"))
    assert untraced.count("ValueError") == 11 and "protocol" in untraced
    process = start("traced")
    with trace.Session(pid=process.pid) as session:
        counts = [session.usdt(f"asyncio:{name}").count() for name in TASKS]
        session.start()
        said = finish(process).splitlines(keepends=True)
        # One line says that what the odd task factory makes has no name.
        assert len([line for line in said if line.startswith("usdtkit: probe asyncio:task__create")]) == 1
        assert "".join(line for line in said if not line.startswith("usdtkit: ")) == untraced
        assert all(sum(each.read().values()) for each in counts if each is not counts[4])
