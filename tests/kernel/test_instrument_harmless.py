"""Programs that are strange in every way that ready-made probes touch: traced they say and do what they do untraced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import until_hooked
from pythons import environment, tree_for, versions

from usdtkit import Provider, trace
from usdtkit.elf import Image, read_probes

pytestmark = pytest.mark.machine

ROOT = Path(__file__).parents[2]

# What a service may be made of, and what each of it does when it is asked anything that is none of its business.
STRANGE = r'''
import asyncio, functools, gc, http.client, io, logging, sqlite3, sys, threading, warnings
import wsgiref.handlers, wsgiref.simple_server
warnings.simplefilter("error")

class Strange:
    """Ends the program when it is asked what it is."""
    def __getattr__(self, name):
        raise SystemExit("asked for " + name)
    def __str__(self):
        raise SystemExit("asked for its text")
    __repr__ = __index__ = __str__
    def __call__(self, *args):
        return "called"

said = []

# logging: a record whose message cannot be made, one that logs, one that nobody would format
logging.getLogger().addHandler(logging.NullHandler())
logger = logging.getLogger("strange")
class Logs:
    def __str__(self):
        logger.warning("%s", Logs())
        return "logs"
logger.warning("%s", Strange())
logger.warning("%s", Logs())
logger.warning("%d", "x")
logger.warning(Strange())

# asyncio: callbacks that are objects, a task factory that makes something else, an exception nobody retrieves
async def fails():
    raise ValueError("mine")
async def main():
    loop = asyncio.get_running_loop()
    loop.call_soon(Strange())
    loop.call_later(0.001, Strange())
    class Odd:
        def __await__(self):
            return iter(())
        def set_name(self, name):
            pass
    loop.set_task_factory(lambda loop, coroutine, **more: (coroutine.close(), Odd())[1])
    said.append(type(loop.create_task(asyncio.sleep(0))).__name__)
    loop.set_task_factory(None)
    task = loop.create_task(fails())
    await asyncio.wait([task])
    said.append(repr(task.exception()))
    await asyncio.sleep(0.01)
asyncio.run(main())

# http: a connection that is none, one whose attributes are its own
class Connection(http.client.HTTPConnection):
    def __init__(self):
        super().__init__("127.0.0.1", 9)
    def __setattr__(self, name, value):
        if name.startswith("_usdtkit"):
            raise SystemExit("set " + name)
        super().__setattr__(name, value)
    def connect(self):
        raise ConnectionRefusedError("mine")
    port = property(lambda self: "not a number", lambda self, value: None)
for method, url in (("GET", "/"), ("GET", "/\udcff")):
    try:
        Connection().request(method, url)
    except Exception as error:
        said.append(type(error).__name__)

# gc, locks
gc.collect()
lock = threading.Lock()
for arguments in ((False, 5), (True, -5), (True, -1), (False,)):
    try:
        said.append((arguments, lock.acquire(*arguments)))
        lock.release()
    except Exception as error:
        said.append((arguments, type(error).__name__))
class Holder:
    lock = threading.RLock
said.append(Holder().lock().acquire())
threading.Thread(target=threading.Lock).start()

# threads: a function without a name, one that fails, names that are no UTF-8
import _thread, time
ended = []
def unraisable(failed):
    ended.append((type(failed.exc_value).__name__, str(failed.object or failed.err_msg)[:9]))
sys.unraisablehook = unraisable
class Callable:
    def __call__(self):
        ended.append("ran")
def broken():
    raise ValueError
for function in (Callable(), functools.partial(Callable()), broken):
    before = len(ended)
    _thread.start_new_thread(function, ())
    while len(ended) == before:
        time.sleep(0.001)
for name in ("\udcff", "\ud800", "ö"):
    thread = threading.Thread(target=Callable(), name=name)
    thread.start()
    thread.join()
said.append(ended)

# dbapi: the query by its name, an object that is no text
connection = sqlite3.connect(":memory:")
for query in ("select 1", 5, None):
    try:
        said.append(connection.cursor().execute(query).fetchall())
    except Exception as error:
        said.append((type(error).__name__, str(error)[:20]))
try:
    connection.cursor().execute()
except TypeError as error:
    said.append("TypeError")

# wsgi: the length of a body of one piece is sent
def answer(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"one piece"]
def strange(environ, start_response):
    environ["werkzeug.request"] = Strange()
    start_response("200 OK", [])
    return iter([b"a", b"b"])
def wrong(environ, start_response):
    start_response(b"200 OK", [])
from usdtkit.instrument import wsgi, asgi
base = {"PATH_INFO": 5, "REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.0"}
for application in (answer, strange, wrong):
    output, errors = io.BytesIO(), io.StringIO()
    handler = wsgiref.handlers.SimpleHandler(io.BytesIO(), output, errors, base)
    handler.http_version = "1.0"
    handler.run(wsgi.wrap(application))
    said.append([line for line in output.getvalue().split(b"\r\n") if not line.startswith(b"Date")])
    said.append(errors.getvalue().strip().split("\n")[-1])

# asgi: messages that are none, a route that is strange
async def asgi_application(scope, receive, send):
    scope["route"], scope["endpoint"] = Strange(), Strange()
    await send({"type": "http.response.start", "status": "what"})
    await send(5)
    return "ignored"
async def send(message):
    said.append(str(message))
async def receive():
    pass
asyncio.run(asgi.wrap(asgi_application)({"type": "http", "method": 5}, receive, send))
try:
    asyncio.run(asgi.wrap(asgi_application)({"type": "http"}, receive, None))
except TypeError as error:
    said.append(str(error))

def at_all():
    return said
for each in at_all():
    print(each)
print("handlers", [sys.gettrace() is None, threading._trace_hook if hasattr(threading, "_trace_hook") else None])
'''
WITH = "asyncio,dbapi,gc,http,locks,logging,wsgi,asgi"
PROBES = (
    *("asyncio:task__create", "asyncio:task__step", "asyncio:task__done", "asyncio:callback", "asyncio:lag"),
    *("http:request__start", "http:request__done", "logging:record", "locks:wait", "gc:collection"),
    *("dbapi:query__start", "dbapi:query__done", "wsgi:request__start", "wsgi:request__done"),
    *("asgi:request__start", "asgi:request__done", "python:thread__start", "python:thread__stop"),
)
# Waits until the hooks are set.
RUN = """
import sys
from usdtkit.instrument import watcher
if sys.argv[2] == "traced":
    print("ready", flush=True)
    sys.stdin.readline()
exec(compile(open(sys.argv[1]).read(), "strange.py", "exec"), {"__name__": "__main__"})
"""


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    return lambda version: tree_for(version, folder)


@pytest.mark.parametrize("version", versions())
def test_a_strange_program_is_as_strange_when_it_is_traced(version, trees, spawn, wait_for_line, tmp_path):
    path, tree = trees(version)
    program = tmp_path / "strange.py"
    program.write_text(STRANGE)
    variables = environment(tree)
    command = [path, "-m", "usdtkit.run", "--with", WITH, "-c", RUN, program]
    untraced = subprocess.run(
        [*command, "untraced"], env=variables, cwd="/", capture_output=True, text=True, timeout=60
    )
    assert (untraced.stderr, untraced.returncode) == ("", 0)
    assert untraced.stdout.count("\n") == 24
    process = spawn([*command, "traced"], env=variables, cwd="/", stderr=subprocess.PIPE)
    wait_for_line(process, "ready")
    with trace.Session(pid=process.pid) as session:
        for name in PROBES:
            session.usdt(name).count()
        starts = session.usdt("python:thread__start").count("name")
        session.start()
        until_hooked(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        output = process.stdout.read()
        log = process.stderr.read()
        assert process.wait(60) == 0, log
        summary = session.summary()
        names = {name for (name,) in starts.read()}
    assert output == untraced.stdout
    assert log == ""  # the program's own handler has swallowed what there was to tell
    assert summary.rejected >= 2 and summary.lost == 0
    assert summary.hits > 100
    assert names >= {"\udcff", "\\ud800", "ö", "Callable", "functools.partial", "broken"}, names


OWN = """
import sys
from usdtkit import Provider
web = Provider("http")
start = web.probe("request__start", url="str")
web.load()
print("ready", web.files[0], flush=True)
sys.stdin.readline()
for _ in range(997):
    start("/")
import http.client
try:
    http.client.HTTPConnection("127.0.0.1", 9).request("GET", "/")
except OSError:
    print("app runs", flush=True)
"""


def test_a_program_with_a_provider_of_the_same_name(spawn, wait_for_line):
    command = [sys.executable, "-m", "usdtkit.run", "--with", "http,gc", "-c", OWN]
    process = spawn(command, stderr=subprocess.PIPE)
    path = wait_for_line(process, "ready").split()[1]
    with trace.Session(pid=process.pid) as session:
        urls = session.usdt("http:request__start", path=path).count("url")
        others = session.usdt("http:request__done").count()
        session.start()
        process.stdin.write("\n")
        process.stdin.flush()
        wait_for_line(process, "app runs")
        assert process.wait(20) == 0
        assert (urls.read(), others.read()) == ({("/",): 997}, {(): 0})
    said = "the program has its own probes http:request__start, so the ready-made probes of http are switched off"
    assert process.stderr.read() == f"usdtkit: {said}\n"


BESIDE = """
import time
from usdtkit import Provider
mine = Provider("logging", nop="fast").probe("mine", number="u64")
from usdtkit.instrument import logging as ready_made, python, watcher
Provider("python", nop="fast").probe("mine_too").provider
ready_made.install()
python.install()
print("ready", flush=True)
time.sleep(0.3)
import logging
print("untraced", watcher.traced(["logging:record"]), len(python.traced()), flush=True)
input()
for number in range(997):
    logging.getLogger("x").error("record %d", number)
    mine(number)
print("done", flush=True)
"""


def test_providers_of_one_name_with_different_probes_and_nops(spawn, wait_for_line):
    """Nobody tracing, nothing believes that it is traced; and traced, both are seen."""
    process = spawn([sys.executable, "-c", BESIDE], stderr=subprocess.DEVNULL)
    assert wait_for_line(process, "untraced") == "untraced frozenset() 0"
    with trace.Session(pid=process.pid) as session:
        records = session.usdt("logging:record").count("logger")
        session.start()
        until_hooked(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        wait_for_line(process, "done")
        assert records.read() == {("x",): 997}


def test_the_first_byte_of_a_site_comes_from_its_file(tmp_path):
    from usdtkit.probes import image

    for nop, first in (("safe", 0x90), ("fast", 0x0F)):
        shop = Provider(f"byte_{nop}", file=tmp_path / f"{nop}.so")
        probe = shop.probe("order", id="u64")
        (tmp_path / f"{nop}.so").write_bytes(image.build(shop.name, shop.specs, nop=nop))
        shop.load()
        assert (probe.path, probe.pristine, probe.enabled) == (str(tmp_path / f"{nop}.so"), first, False)
        with Image.open(probe.path) as opened, trace.Session(pid=os.getpid()) as session:
            (found,) = read_probes(opened)
            assert opened.read(found.sites[0].file_offset, 1)[0] == first
            session.usdt(f"byte_{nop}:order", path=probe.path).emit("id")
            session.start()
            assert probe.enabled
            probe(997)
            assert [event.id for event in session.drain()] == [997]
        assert not probe.enabled
